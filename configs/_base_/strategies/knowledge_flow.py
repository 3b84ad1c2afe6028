"""Knowledge Flow (Liu et al. 2019) with handover, which the paper has not."""
custom_hooks = [
    # lambda_1 at the end, lambda_2
    dict(
        type='mmkd_rl.KnowledgeFlowHook',
        dependency_weight=0.1,
        kl_weight=0.05),
    dict(type='mmkd_rl.FlowVisualizationHook'),
    dict(type='mmkd_rl.StudentExportHook'),
]
