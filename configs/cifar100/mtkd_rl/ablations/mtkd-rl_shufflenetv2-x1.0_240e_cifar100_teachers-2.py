r"""MTKD-RL from two teachers, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_teachers-2.py

Paper: MTKD-RL (AAAI 2025), Fig. 2, number of teachers: the paper shows a
curve, no numbers. Its text: it rises up to four.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py; which
teachers it took is not printed.
"""  # noqa: E501
_base_ = [
    '../../baseline/shufflenetv2-x1.0_240e_cifar100.py',
    '../../../_base_/pools/cifar100_table1_first2.py',
    '../../../_base_/strategies/mtkd_rl.py',
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
