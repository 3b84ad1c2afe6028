r"""EB-KD: MobileNetV2 from four teachers, weighed by entropy.

    python tools/train.py \
    configs/cifar100/eb_kd/eb-kd_mobilenetv2-x1.0_240e_cifar100.py

Paper: not in MTKD-RL (AAAI 2025); the method is that of Kwon et al. (ICASSP
2020).
Not yet reproduced. Expected time: AVER's 2.7 h on one RTX 4090 and somewhat
more; the paper gives none; not measured.
Differences: the published code's milestones (150, 180, 210) and Nesterov
momentum; the appendix prints 100 and 150; alpha, beta and T are MTKD-RL's,
the same for all methods.
"""
_base_ = [
    '../baseline/mobilenetv2-x1.0_240e_cifar100.py',
    '../../_base_/pools/cifar100_table1.py',
    '../../_base_/strategies/eb_kd.py',
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
