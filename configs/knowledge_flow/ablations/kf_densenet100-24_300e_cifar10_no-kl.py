r"""Knowledge Flow on CIFAR-10 without the KL term.

    python tools/train.py \
    configs/knowledge_flow/ablations/kf_densenet100-24_300e_cifar10_no-kl.py

Paper: Knowledge Flow (ICLR 2019), Sec. 7.4.2, Fig. 9; no number for a
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
        kl_weight=0.,
        handover_weight=0.),
    dict(type='mmkd_rl.FlowVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
