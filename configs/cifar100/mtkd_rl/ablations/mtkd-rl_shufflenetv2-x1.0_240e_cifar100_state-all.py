r"""MTKD-RL whose agent sees all parts of the state, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_state-all.py

Paper: MTKD-RL (AAAI 2025), Table 6b, All: 78.39 +- 0.14 % top-1.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py.
"""  # noqa: E501
_base_ = '../mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py'
model = dict(
    weighting=dict(state=[
        'feature', 'logit', 'ce', 'similarity', 'divergence'
    ]))
