"""ResNet-34 for ImageNet, a student of Table 2.

Weights of 73.31 % top-1: torchvision's
``ResNet34_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain's own ``resnet34_8xb32_in1k`` has 73.62 %.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmpretrain.ResNet', depth=34),
    head=dict(num_classes=1000, in_channels=512))
