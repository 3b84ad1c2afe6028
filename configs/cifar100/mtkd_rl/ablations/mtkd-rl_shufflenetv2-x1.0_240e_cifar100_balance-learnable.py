r"""MTKD-RL with learnable balances of the action, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_balance-learnable.py

Paper: MTKD-RL (AAAI 2025), Appendix A.1: similar to constant ones, no number.
The published code's ReadMe: 78.74 %.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py.
"""  # noqa: E501
_base_ = '../mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py'
model = dict(weighting=dict(agent=dict(learnable_balance=True)))
