r"""MTKD-RL with PPO for its agent, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_updater-ppo.py

Paper: MTKD-RL (AAAI 2025), Table 6a, PPO: 78.28 +- 0.08 % top-1.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py; the
updater's settings are ours, the paper gives none.
"""  # noqa: E501
_base_ = '../mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py'
model = dict(weighting=dict(updater=dict(type='PPO')))
