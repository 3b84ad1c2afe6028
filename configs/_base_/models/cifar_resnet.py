"""ResNet for 32x32 images; a leaf sets ``model.backbone.depth``."""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmkd_rl.CifarResNet', depth=20, channels_last=True),
    head=dict(num_classes=100, in_channels=64))
