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
