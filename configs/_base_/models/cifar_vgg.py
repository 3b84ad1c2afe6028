"""VGG for 32x32 images; a leaf sets ``model.backbone.depth``."""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmkd_rl.CifarVGG', depth=8, channels_last=True),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=100,
        in_channels=512,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
