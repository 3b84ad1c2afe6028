r"""MTKD-RL: ResNet-8 from three teachers, weighed by the agent.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_resnet8_6e_cifar100-fifth.py

A run of minutes on a CPU, see docs/results/cifar100.md. Train the three
teachers first (configs/cifar100/teachers/*_1xb128-*.py).
Paper: the method is MTKD-RL (AAAI 2025), Algorithms 1 and 2, Table 1.
Expected: 27.09 % top-1 (mean of three seeds), 3.5 min of one CPU core.
Differences: student, teachers, a fifth of the images and 6 epochs are our own
choice; reward, updater and standardised states are our defaults, see
docs/mtkd_rl.md; ``..._paper-rule`` has the paper's.
"""
_base_ = '../aver/aver_resnet8_6e_cifar100-fifth.py'
model = dict(weighting=dict(_delete_=True, type='MTKDRL'))
custom_hooks = [
    dict(type='TeacherCheckHook'),
    dict(type='AgentAlternationHook', warmup=1, interval=1, by_epoch=True),
    dict(type='WeightVisualizationHook', interval=39),
    dict(type='StudentExportHook'),
]
