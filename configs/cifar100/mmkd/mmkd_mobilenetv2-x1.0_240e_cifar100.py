r"""MMKD: MobileNetV2 from four teachers, meta-learned weights.

    python tools/train.py \
    configs/cifar100/mmkd/mmkd_mobilenetv2-x1.0_240e_cifar100.py

Paper: MTKD-RL (AAAI 2025), Table 1, MMKD: 74.35 +- 0.34 % top-1.
Not yet reproduced. Expected time: AVER's 2.7 h on one RTX 4090 and somewhat
more; the paper gives none; not measured.
Differences: the published code's milestones (150, 180, 210) and Nesterov
momentum; the appendix prints 100 and 150; alpha, beta and T are MTKD-RL's,
the same for all methods.
"""
_base_ = [
    '../baseline/mobilenetv2-x1.0_240e_cifar100.py',
    '../../_base_/pools/cifar100_table1.py',
    '../../_base_/strategies/mmkd.py',
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
