"""ResNet-50 for ImageNet, a teacher of Table 2.

Weights of 76.13 % top-1: torchvision's
``ResNet50_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain's own ``resnet50_8xb32_in1k`` has 76.55 %.
"""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.ResNet', depth=50),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=2048,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
