r"""MTKD-RL: MobileNetV2, with the agent's rule as the paper has it.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_mobilenetv2-x1.0_240e_cifar100_paper-rule.py

Paper: MTKD-RL (AAAI 2025), Table 1: 74.63 +- 0.35 % top-1; Eqs. 6 to 8 and
Algorithm 2: the reward is taken after the student's update, which costs
another forward pass of it.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch for ShuffleNetV2 (Table 6c); not measured.
Differences: the published code's milestones (150, 180, 210) and Nesterov
momentum; the appendix prints 100 and 150; the mean in Eq. 8 is of the
rescaled rewards; the history is bounded; the paper names no optimiser for the
agent, ours is kept.
"""  # noqa: E501
_base_ = [
    '../baseline/mobilenetv2-x1.0_240e_cifar100.py',
    '../../_base_/pools/cifar100_table1.py',
    '../../_base_/strategies/mtkd_rl_paper-rule.py',
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
