"""WRN of widen factor 2; a leaf sets ``model.backbone.depth``."""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmkd_rl.CifarWideResNet',
        depth=16,
        widen_factor=2,
        channels_last=True),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=100,
        in_channels=128,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
