r"""MTKD-RL with the agent's rule as the paper has it.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_resnet8_6e_cifar100-fifth_paper-rule.py

A run of minutes on a CPU, see docs/results/cifar100.md.
Paper: MTKD-RL (AAAI 2025), Eqs. 6 to 8 and Algorithm 2: the reward is taken
after the student's update, which costs another forward pass of it.
Expected: 26.84 % top-1 (mean of three seeds), 3.2 min of one CPU core.
Differences: student, teachers, a fifth of the images and 6 epochs are our own
choice; the mean in Eq. 8 is of the rescaled rewards; the history is bounded.
"""
_base_ = './mtkd-rl_resnet8_6e_cifar100-fifth.py'
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
