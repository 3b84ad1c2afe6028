"""What an MTKD-RL run needs beside its model; a second base for any config.

    _base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py',
              'mmkd_rl::_base_/mtkd_rl.py']

A config whose other base has ``custom_hooks`` lists all of them itself.
"""
custom_imports = dict(imports=['mmkd_rl'], allow_failed_imports=False)
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(type='mmkd_rl.AgentAlternationHook', warmup=1, interval=1),
    dict(type='mmkd_rl.WeightVisualizationHook'),
    dict(type='mmkd_rl.RandomStateHook'),
    dict(type='mmkd_rl.StudentExportHook'),
]
