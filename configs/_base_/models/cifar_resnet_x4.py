"""ResNet x4 for 32x32 images; a leaf sets ``model.backbone.depth``."""
_base_ = './cifar_resnet.py'
model = dict(backbone=dict(depth=8, width=4), head=dict(in_channels=256))
