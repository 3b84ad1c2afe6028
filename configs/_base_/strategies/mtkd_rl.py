"""MTKD-RL: an agent weighs the teachers (Yang et al., AAAI 2025).

Reward, updater, balances and standardised states are our defaults, see
docs/mtkd_rl.md.
"""
_base_ = './kd_fitnet.py'
weighting = dict(type='MTKDRL')
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(
        type='mmkd_rl.AgentAlternationHook',
        warmup=1,
        interval=1,
        by_epoch=True),
    dict(type='mmkd_rl.WeightVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
