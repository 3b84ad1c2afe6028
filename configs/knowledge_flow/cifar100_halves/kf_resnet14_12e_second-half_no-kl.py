r"""Knowledge Flow on classes 50 to 99, two teachers, no KL term.

    python tools/train.py \
    configs/knowledge_flow/cifar100_halves/kf_resnet14_12e_second-half_no-kl.py

Not an experiment of the paper: its Sec. 4.2 in minutes on a CPU, see
docs/results/knowledge_flow.md.
Before: resnet14_5e_first-half.py and resnet14_5e_first-half_rotations.py.
Run, see there. Expected time: 2 to 3 min of one CPU core.
Differences: task, networks and schedule are our choice; as Sec. 7.4.2 of the
paper, which has games.
"""
_base_ = './kf_resnet14_12e_second-half_from-both.py'
custom_hooks = [
    dict(
        type='mmkd_rl.KnowledgeFlowHook',
        dependency_weight=0.1,
        kl_weight=0.),
    dict(type='mmkd_rl.FlowVisualizationHook', interval=20),
    dict(type='mmkd_rl.StudentExportHook'),
]
