"""Chen's plain network for CIFAR (2017), 128 to 1024 channels."""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmkd_rl.PlainConvNet', stages='cifar', width=128),
    head=dict(num_classes=100, in_channels=1024))
