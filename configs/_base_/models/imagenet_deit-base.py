"""DeiT-Base at 224 pixels for ImageNet, a teacher of Table 3.

Weights of 81.8 % top-1: timm's ``deit_base_patch16_224.fb_in1k``, which
``tools/model_converters/convert.py --from timm`` makes into a checkpoint of
this model.
MMPretrain has the same, converted, as ``deit-base_3rdparty_in1k``.
Here without mixup and the like: a training config adds ``train_cfg``.
"""
_base_ = './imagenet_deit-tiny.py'
model = dict(
    backbone=dict(arch='deit-base', drop_path_rate=0.1),
    head=dict(in_channels=768))
