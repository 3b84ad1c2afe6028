"""A good teacher of the demo: WRN-10-2 on rendered digits, true labels.

Command: python tools/train.py configs/demo/teacher_wrn10_2.py \\
             --work-dir work_dirs/demo/teacher_wrn10_2
Result:  89.6 % accuracy (seed 0).
Time:    172 s on one of two cores, the other busy as well.
"""

_base_ = [
    '../_base_/demo_digits.py', '../_base_/demo_schedule_4e.py',
    '../_base_/demo_runtime.py'
]

model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmkd_rl.CifarWideResNet',
        depth=10,
        widen_factor=2,
        channels_last=True),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
