"""ResNet-34 for ImageNet, a student of Table 2.

Weights of 73.31 % top-1: torchvision's
``ResNet34_Weights.IMAGENET1K_V1``, which
``tools/model_converters/convert.py --from torchvision`` makes into a
checkpoint of this model.
MMPretrain's own ``resnet34_8xb32_in1k`` has 73.62 %.
"""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.ResNet', depth=34),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
