"""RegNetX-400MF for 32x32 images; a leaf sets ``arch`` of another.

RegNetX-200MF's head has ``in_channels=368``.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(
        type='mmkd_rl.CifarRegNet', arch='regnetx_400mf', channels_last=True),
    head=dict(num_classes=100, in_channels=384))
