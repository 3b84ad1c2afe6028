r"""MTKD-RL: ResNet-8 from three teachers, weighed by the agent.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_resnet8_6e_cifar100-fifth.py

A run of minutes on a CPU, see docs/results/cifar100.md. Train the three
teachers first (configs/cifar100/teachers/*_1xb128-*.py).
Paper: the method is MTKD-RL (AAAI 2025), Algorithms 1 and 2, Table 1.
Expected: 28.19 % top-1 (mean of three seeds), 3.5 min of one CPU core.
Differences: student, teachers, a fifth of the images and 6 epochs are our own
choice; reward, updater and standardised states are our defaults, see
docs/mtkd_rl.md; ``..._paper-rule`` has the paper's.
"""
_base_ = [
    '../baseline/resnet8_1xb64-6e_cifar100-fifth.py',
    '../../_base_/pools/cifar100_short.py',
    '../../_base_/strategies/mtkd_rl.py',
]
model = dict(
    _delete_=True,
    type='MultiTeacherDistiller',
    student={{_base_.model}},
    teachers={{_base_.teachers}},
    logit_loss={{_base_.logit_loss}},
    feature_loss={{_base_.feature_loss}},
    weighting={{_base_.weighting}},
    probe_size=32)
custom_hooks = [
    dict(type='TeacherCheckHook'),
    # A quarter of an epoch: whole ones would leave the agent five turns.
    dict(
        type='AgentAlternationHook', warmup=39, interval=39, by_epoch=False),
    dict(type='WeightVisualizationHook', interval=39),
    dict(type='StudentExportHook'),
]
