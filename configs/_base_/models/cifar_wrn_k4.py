"""WRN of widen factor 4; a leaf sets ``model.backbone.depth``."""
_base_ = './cifar_wrn_k2.py'
model = dict(
    backbone=dict(depth=28, widen_factor=4), head=dict(in_channels=256))
