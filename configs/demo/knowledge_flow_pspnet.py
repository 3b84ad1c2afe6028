"""A small PSPNet on scenes of digits, taught by a classifier.

Differs from pspnet_plain.py in the teacher only, a classifier of single
digits: its inner layers flow into the backbone while it is trained.

Command: python tools/train.py configs/demo/knowledge_flow_pspnet.py \\
             --work-dir work_dirs/demo/knowledge_flow_pspnet
Before:  those of pspnet_plain.py, and teacher_resnet20.py.
Result:  not yet run.
"""

_base_ = ['pspnet_plain.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers=[
            dict(
                name='resnet20',
                config='configs/demo/teacher_resnet20.py',
                checkpoint='work_dirs/demo/teacher_resnet20/epoch_4.pth')
        ]))
custom_hooks = [
    dict(type='KnowledgeFlowHook', interval=10),
    dict(type='FlowVisualizationHook', interval=10),
    dict(type='StudentExportHook')
]
