"""ShuffleNetV2 x1.0 for 32x32 images."""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmkd_rl.CifarShuffleNetV2', width_mult=1.0, channels_last=True),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=100,
        in_channels=1024,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
