r"""Knowledge Flow on classes 50 to 99 from classes 0 to 49.

    python tools/train.py \
    configs/knowledge_flow/cifar100_halves/kf_resnet14_12e_second-half_from-classes.py

Not an experiment of the paper: its Sec. 4.2 in minutes on a CPU, see
docs/results/knowledge_flow.md.
Before: resnet14_5e_first-half.py.
Run, see there. Expected time: 2 to 3 min of one CPU core.
Differences: task, networks and schedule are our choice.
"""
_base_ = [
    './resnet14_12e_second-half.py',
    '../../_base_/pools/knowledge_flow_halves.py',
    '../../_base_/strategies/knowledge_flow.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers=[{{_base_.teacher_classes}}]))
