r"""Knowledge Flow and KD together on MNIST.

    python tools/train.py \
    configs/knowledge_flow/table4/kfkd_mlp-800_60e_mnist.py

Not an experiment of the paper, which compares the two in Table 4: its student
is said to gain from the teacher's output layer, too (Sec. 7.1), and only KD
tells one that has no 3 in its targets what a 3 is.
Before: mlp-1200_60e_mnist.py.
Not yet reproduced. Expected time: some 10 min of a CPU (not measured).
Differences: as of kd_... and kf_....
"""
_base_ = './kd_mlp-800_60e_mnist.py'
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
        kl_weight=0.05,
        handover_weight=0.),
    dict(type='mmkd_rl.FlowVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
