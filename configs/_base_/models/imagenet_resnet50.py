"""ResNet-50 for ImageNet, a teacher of Table 2.

Weights of 76.13 % top-1: torchvision's
``ResNet50_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain's own ``resnet50_8xb32_in1k`` has 76.55 %.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmpretrain.ResNet', depth=50),
    head=dict(num_classes=1000, in_channels=2048))
