"""AVER: three teachers of equal weight, KD on logits and FitNet on features.

Schedule and seed are those of student_alone.py; every tenth iteration the
(constant) weights are noted, so that its record compares with MTKD-RL's.

Command: python tools/train.py configs/demo/student_aver.py \\
             --work-dir work_dirs/demo/student_aver
Before:  the three teachers.
Result:  88.2 % accuracy (seed 0).
Time:    135 s on one of two cores, the other busy as well.
"""

_base_ = [
    '../_base_/demo_student.py', '../_base_/demo_teachers.py',
    '../_base_/demo_digits.py',
    '../_base_/demo_schedule_3e.py',
    '../_base_/demo_runtime.py'
]

model = dict(
    _delete_=True,
    type='mmkd_rl.MultiTeacherDistiller',
    student={{_base_.model}},
    teachers={{_base_.teachers}},
    logit_loss=dict(type='KDLoss', temperature=4.0, loss_weight=1.0),
    feature_loss=dict(type='FitNetLoss', loss_weight=5.0),
    weighting=dict(type='AverageWeighting'),
    probe_size=32)
custom_hooks = [
    dict(type='WeightVisualizationHook', interval=10, num_samples=0),
    dict(type='StudentExportHook')
]
