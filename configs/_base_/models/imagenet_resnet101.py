"""ResNet-101 for ImageNet, a teacher of Table 2.

Weights of 77.37 % top-1: torchvision's
``ResNet101_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain's own ``resnet101_8xb32_in1k`` has 77.97 %.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmpretrain.ResNet', depth=101),
    head=dict(num_classes=1000, in_channels=2048))
