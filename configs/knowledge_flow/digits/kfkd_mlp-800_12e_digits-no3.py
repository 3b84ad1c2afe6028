r"""Knowledge Flow and KD together on the digits without 3.

    python tools/train.py \
    configs/knowledge_flow/digits/kfkd_mlp-800_12e_digits-no3.py

Not an experiment of the paper: Table 4 (MNIST) on the embedded digits, see
docs/results/knowledge_flow.md.
Before: mlp-1200_12e_digits.py.
Run, see there. Expected time: 1 to 2 min of one CPU core.
Differences: digits are rendered in clutter; the schedule is our choice.
"""
_base_ = './kd_mlp-800_12e_digits-no3.py'
model = dict(
    student=dict(
        backbone=dict(
            _delete_=True,
            type='mmkd_rl.KnowledgeFlowBackbone',
            student={{_base_.model.student.backbone}},
            teachers='distiller')))
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(
        type='mmkd_rl.KnowledgeFlowHook',
        dependency_weight=0.1,
        kl_weight=0.05),
    dict(type='mmkd_rl.FlowVisualizationHook', interval=20),
    dict(type='mmkd_rl.StudentExportHook'),
]
