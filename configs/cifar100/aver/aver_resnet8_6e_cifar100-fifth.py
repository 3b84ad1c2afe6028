r"""AVER (KD + FitNet): ResNet-8 from three teachers with equal weights.

    python tools/train.py \
    configs/cifar100/aver/aver_resnet8_6e_cifar100-fifth.py

A run of minutes on a CPU, see docs/results/cifar100.md. Train the three
teachers first (configs/cifar100/teachers/*_1xb128-*.py).
Paper: the method is AVER (KD+FitNet) of MTKD-RL (AAAI 2025), Table 1.
Expected: 26.15 % top-1 (mean of three seeds), 3.5 min of one CPU core.
Differences: student, teachers, a fifth of the images and 6 epochs are our own
choice; weights sum to one.
"""
_base_ = [
    '../baseline/resnet8_1xb64-6e_cifar100-fifth.py',
    '../../_base_/pools/cifar100_short.py',
    '../../_base_/strategies/aver.py',
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
