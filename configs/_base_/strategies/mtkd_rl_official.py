"""MTKD-RL with the choices of the published code (github winycg/MTKD-RL).

One reward a sample for all teachers, binary cross entropy of the weights
against ones as the agent's loss, plain SGD of 0.1, states as they are, the
agent's turn every 1,000 iterations, projectors that end with a ReLU.
"""
_base_ = './mtkd_rl.py'
projector = dict(act=True)
weighting = dict(
    scale='paper',
    agent=dict(standardize=False, learnable_balance=False),
    reward=dict(type='BatchReward'),
    reward_time='before',
    updater=dict(
        type='BCEUpdater',
        optimizer=dict(type='SGD', lr=0.1),
        max_grad_norm=None))
# 781 iterations are an epoch of CIFAR-100 at batch 64.
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(
        type='mmkd_rl.AgentAlternationHook',
        warmup=781,
        interval=1000,
        by_epoch=False),
    dict(type='mmkd_rl.WeightVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
