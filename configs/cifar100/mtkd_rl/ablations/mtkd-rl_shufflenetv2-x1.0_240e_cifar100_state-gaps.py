r"""MTKD-RL whose agent sees the gaps to teachers, ShuffleNetV2.

    python tools/train.py \
    configs/cifar100/mtkd_rl/ablations/mtkd-rl_shufflenetv2-x1.0_240e_cifar100_state-gaps.py

Paper: MTKD-RL (AAAI 2025), Table 6b, cosine and KL divergence: 77.46 +- 0.21
% top-1.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch (Table 6c); not measured.
Differences: those of mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py; the action
keeps its confidence term (agent.balance=(1,0,1) takes it out).
"""  # noqa: E501
_base_ = '../mtkd-rl_shufflenetv2-x1.0_240e_cifar100.py'
model = dict(weighting=dict(state=['similarity', 'divergence']))
