r"""MTKD-RL whose agent sees how teachers do, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_state-performance.py

Paper: MTKD-RL (AAAI 2025), Table 6b, features, logits and cross entropy:
77.84 +- 0.17 % top-1.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py; the action
keeps its divergence term (agent.balance=(1,1,0) takes it out).
"""  # noqa: E501
_base_ = '../mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py'
model = dict(weighting=dict(state=['feature', 'logit', 'ce']))
