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
