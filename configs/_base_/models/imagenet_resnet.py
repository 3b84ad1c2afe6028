"""ResNet-50 and its kin for ImageNet.

A leaf sets ``model.backbone.depth``; the head of depths 18 and 34 has
``in_channels=512``.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmpretrain.ResNet', depth=50),
    head=dict(num_classes=1000, in_channels=2048))
