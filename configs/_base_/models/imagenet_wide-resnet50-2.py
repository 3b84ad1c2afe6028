"""Wide ResNet-50-2 for ImageNet, a teacher of Table 2.

Weights of 78.47 % top-1: torchvision's
``Wide_ResNet50_2_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain has the same, converted, as
``wide-resnet50_3rdparty_8xb32_in1k``.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(
        type='mmpretrain.ResNet', depth=50, base_channels=128, expansion=2),
    head=dict(num_classes=1000, in_channels=2048))
