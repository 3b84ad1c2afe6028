r"""MTKD-RL with the agent's rule as the paper has it.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_resnet56_240e_cifar100_paper-rule.py

Paper: MTKD-RL (AAAI 2025), Table 1: 75.35 +- 0.33 % top-1; Eqs. 6 to 8
and Algorithm 2: the reward is taken after the student's update, which costs
another forward pass of it.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: two of the paper's four teachers, the RegNets are missing; the
mean in Eq. 8 is of the rescaled rewards; the history is bounded.
"""
_base_ = './mtkd-rl_resnet56_240e_cifar100.py'
model = dict(
    weighting=dict(
        scale='paper',
        agent=dict(standardize=False),
        reward=dict(type='DistanceReward'),
        reward_time='after',
        updater=dict(
            type='PolicyGradient',
            objective='log',
            normalization='minmax',
            entropy_weight=0.)))
