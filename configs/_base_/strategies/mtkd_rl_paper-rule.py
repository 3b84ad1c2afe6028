"""MTKD-RL with Eqs. 6 to 8 and Algorithm 2 as the paper has them.

The reward is taken after the student's update, which costs another forward
pass of it.
"""
_base_ = './mtkd_rl.py'
weighting = dict(
    scale='paper',
    agent=dict(standardize=False, learnable_balance=False),
    reward=dict(type='DistanceReward'),
    reward_time='after',
    updater=dict(
        type='PolicyGradient',
        objective='log',
        normalization='minmax',
        entropy_weight=0.))
