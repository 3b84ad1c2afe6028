"""A good teacher of the demo: ResNet-20 on rendered digits, true labels.

Command: python tools/train.py configs/demo/teacher_resnet20.py \\
             --work-dir work_dirs/demo/teacher_resnet20
Result:  90.4 % accuracy (seed 0).
Time:    150 s on one of two cores, the other busy as well.
"""

_base_ = [
    '../_base_/demo_digits.py', '../_base_/demo_schedule_4e.py',
    '../_base_/demo_runtime.py'
]

model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmkd_rl.CifarResNet', depth=20, channels_last=True),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
