r"""MTKD-RL: ResNet-56 from ResNet-32x4 and WRN-28-4.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_resnet56_240e_cifar100.py

Paper: MTKD-RL (AAAI 2025), Table 1: 75.35 +- 0.33 % top-1.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: two of the paper's four teachers, the RegNets are missing; reward,
updater and standardised states are our defaults, see docs/mtkd_rl.md.
"""
_base_ = '../aver/aver_resnet56_240e_cifar100.py'
model = dict(weighting=dict(_delete_=True, type='MTKDRL'))
custom_hooks = [
    dict(type='TeacherCheckHook'),
    dict(type='AgentAlternationHook', warmup=1, interval=1, by_epoch=True),
    dict(type='WeightVisualizationHook', interval=100),
    dict(type='StudentExportHook'),
]
