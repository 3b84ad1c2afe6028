"""ResNet for 32x32 images; a leaf sets ``model.backbone.depth``.

ResNets x4 have ``model.backbone.width=4``, ``model.head.in_channels=256``.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmkd_rl.CifarResNet', depth=20, channels_last=True),
    head=dict(num_classes=100, in_channels=64))
