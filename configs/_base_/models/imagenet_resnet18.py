"""ResNet-18 for ImageNet, a student of Table 2.

Weights of 69.76 % top-1: torchvision's
``ResNet18_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain's own ``resnet18_8xb32_in1k`` has 69.90 %.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmpretrain.ResNet', depth=18),
    head=dict(num_classes=1000, in_channels=512))
