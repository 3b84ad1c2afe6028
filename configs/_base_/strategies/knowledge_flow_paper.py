"""Knowledge Flow (Liu et al. 2019) with the paper's losses and no other."""
custom_hooks = [
    # lambda_1 at the end, lambda_2
    dict(
        type='mmkd_rl.KnowledgeFlowHook',
        dependency_weight=0.1,
        kl_weight=0.05,
        handover_weight=0.),
    dict(type='mmkd_rl.FlowVisualizationHook'),
    dict(type='mmkd_rl.StudentExportHook'),
]
