"""MTKD-RL: as student_aver.py, with weights that an agent gives each image.

The epochs of Algorithms 1 and 2 are too long for three of them: the agent is
trained after 100 iterations of equal weights and then every 50.

Command: python tools/train.py configs/demo/student_mtkd_rl.py \\
             --work-dir work_dirs/demo/student_mtkd_rl
Before:  the three teachers.
Result:  88.8 % accuracy (seed 0).
Time:    133 s on one of two cores, the other busy as well.
"""

_base_ = ['student_aver.py']

model = dict(weighting=dict(_delete_=True, type='MTKDRL'))
custom_hooks = [
    dict(
        type='AgentAlternationHook', warmup=100, interval=50, by_epoch=False),
    dict(
        type='WeightVisualizationHook',
        interval=10,
        mark=dict(densenet='half of its labels were wrong')),
    dict(type='StudentExportHook')
]
