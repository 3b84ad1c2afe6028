"""DeiT-Small at 224 pixels for ImageNet, a teacher of Table 3.

Weights of 79.8 % top-1: timm's ``deit_small_patch16_224.fb_in1k``, which
``tools/model_converters/convert.py --from timm`` makes into a checkpoint of
this model.
MMPretrain's own ``deit-small_4xb256_in1k`` has 80.69 %.
Here without mixup and the like: a training config adds ``train_cfg``.
"""
_base_ = './imagenet_deit-tiny.py'
model = dict(backbone=dict(arch='deit-small'), head=dict(in_channels=384))
