"""AVER (KD+FitNet): equal weights (You et al. 2017)."""
_base_ = './kd_fitnet.py'
weighting = dict(type='AverageWeighting')
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(type='mmkd_rl.StudentExportHook'),
]
