"""MMKD: two small networks, meta-learned on hard samples (Zhang et al. 2023).

MetaWeightingHook trains them.
"""
_base_ = './kd_fitnet.py'
weighting = dict(type='MMKD')
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(type='mmkd_rl.MetaWeightingHook'),
    dict(type='mmkd_rl.WeightVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
