"""DenseNet (depth 100, growth rate 24) for 32x32 images, 27.2 M weights."""
_base_ = './convnet.py'
model = dict(
    backbone=dict(
        type='mmkd_rl.CifarDenseNet',
        depth=100,
        growth_rate=24,
        channels_last=True),
    head=dict(num_classes=10, in_channels=2320))
