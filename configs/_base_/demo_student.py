"""The demo's student: ResNet-8, 78 thousand parameters."""

model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmkd_rl.CifarResNet', depth=8, channels_last=True),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
