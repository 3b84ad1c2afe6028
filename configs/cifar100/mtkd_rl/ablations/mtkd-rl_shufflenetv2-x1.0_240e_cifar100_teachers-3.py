r"""MTKD-RL from three teachers, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_teachers-3.py

Paper: MTKD-RL (AAAI 2025), Fig. 2, number of teachers: the paper shows a
curve, no numbers. Its text: it rises up to four.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py; which
teachers it took is not printed, these are the first three of its list.
"""  # noqa: E501
_base_ = '../mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py'
teachers = _base_.teachers[:3]
model = dict(teachers=teachers)
