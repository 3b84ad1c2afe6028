"""MobileNetV2 x1.0 for 32x32 images; other widths by ``width_mult``."""
_base_ = './convnet.py'
model = dict(
    backbone=dict(
        type='mmkd_rl.CifarMobileNetV2', width_mult=1.0, channels_last=True),
    head=dict(num_classes=100, in_channels=1280))
