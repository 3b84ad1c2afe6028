r"""Knowledge Flow on CIFAR-10, theta_old an exponential average.

    python tools/train.py \
    configs/knowledge_flow/ablations/kf_densenet100-24_300e_cifar10_average-old.py

Paper: Knowledge Flow (ICLR 2019), Sec. 7.6, Fig. 11; no number for a
supervised task.
Before: the teachers of Table 3.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper's ablation is of reinforcement learning (its number is a
game's reward); this is the same change on Table 3 (a)'s task.
"""
_base_ = '../table3/kf_densenet100-24_300e_cifar10.py'
custom_hooks = [
    dict(
        type='mmkd_rl.KnowledgeFlowHook',
        dependency_weight=0.1,
        kl_weight=0.05,
        handover_weight=0.,
        old='average',
        old_momentum=0.9),
    dict(type='mmkd_rl.FlowVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
