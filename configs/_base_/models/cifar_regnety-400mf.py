"""RegNetY-400MF for 32x32 images."""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmkd_rl.CifarRegNet', arch='regnety_400mf', channels_last=True),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=100,
        in_channels=384,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
