"""WRN of widen factor 4; a leaf sets ``model.backbone.depth``.

With ``model.backbone.widen_factor=K`` the head has ``in_channels=64 * K``.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(
        type='mmkd_rl.CifarWideResNet',
        depth=28,
        widen_factor=4,
        channels_last=True),
    head=dict(num_classes=100, in_channels=256))
