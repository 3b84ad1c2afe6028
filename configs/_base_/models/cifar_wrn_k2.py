"""WRN of widen factor 2; a leaf sets ``model.backbone.depth``."""
_base_ = './convnet.py'
model = dict(
    backbone=dict(
        type='mmkd_rl.CifarWideResNet',
        depth=16,
        widen_factor=2,
        channels_last=True),
    head=dict(num_classes=100, in_channels=128))
