"""Chen's plain network for STL-10's 96x96 images (2017)."""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmkd_rl.PlainConvNet', stages='stl10', width=32),
    head=dict(num_classes=10, in_channels=256))
