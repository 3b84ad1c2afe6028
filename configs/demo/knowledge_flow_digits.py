"""Knowledge Flow: three teachers' inner layers flow into the demo's student.

Schedule and seed are those of student_alone.py.

Command: python tools/train.py configs/demo/knowledge_flow_digits.py \\
             --work-dir work_dirs/demo/knowledge_flow_digits
Before:  the three teachers.
Result:  not yet run.
"""

_base_ = [
    '../_base_/demo_student.py', '../_base_/demo_teachers.py',
    '../_base_/demo_digits.py', '../_base_/demo_schedule_3e.py',
    '../_base_/demo_runtime.py'
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers={{_base_.teachers}},
        probe_size=32))
custom_hooks = [
    dict(type='KnowledgeFlowHook', interval=10),
    dict(
        type='FlowVisualizationHook',
        interval=10,
        mark=dict(densenet='half of its labels were wrong')),
    dict(type='StudentExportHook')
]
