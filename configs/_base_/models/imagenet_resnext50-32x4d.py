"""ResNeXt-50 (32x4d) for ImageNet, a teacher of Table 2.

Weights of 77.62 % top-1: torchvision's
``ResNeXt50_32X4D_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain's own ``resnext50-32x4d_8xb32_in1k`` has 77.90 %.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(
        type='mmpretrain.ResNeXt', depth=50, groups=32, width_per_group=4),
    head=dict(num_classes=1000, in_channels=2048))
