r"""MTKD-RL with alpha = 2 for the logits, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_alpha-2.py

Paper: MTKD-RL (AAAI 2025), Fig. 2, alpha: the paper shows a curve, no
numbers. Its text: 1 is best.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py; which values
the curve has is not printed.
"""  # noqa: E501
_base_ = '../mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py'
model = dict(logit_loss=dict(loss_weight=2.0))
