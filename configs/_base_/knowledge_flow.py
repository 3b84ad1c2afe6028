"""What a Knowledge Flow run needs beside its model; a base for any config.

    _base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
              'mmkd_rl::_base_/knowledge_flow.py']

A config whose other base has ``custom_hooks`` lists all of them itself.
"""
custom_imports = dict(imports=['mmkd_rl'], allow_failed_imports=False)
custom_hooks = [
    # lambda_1 at the end, lambda_2
    dict(
        type='mmkd_rl.KnowledgeFlowHook',
        dependency_weight=0.1,
        kl_weight=0.05),
    dict(type='mmkd_rl.FlowVisualizationHook'),
    dict(type='mmkd_rl.RandomStateHook'),
    dict(type='mmkd_rl.StudentExportHook'),
]
