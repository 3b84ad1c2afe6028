"""DeiT-Tiny at 224 pixels for ImageNet, a student of Table 3.

Weights of 72.2 % top-1: timm's ``deit_tiny_patch16_224.fb_in1k``, which
``tools/model_converters/convert.py --from timm`` makes into a checkpoint of
this model.
MMPretrain's own ``deit-tiny_4xb256_in1k`` has 74.50 %.
Here without mixup and the like: a training config adds ``train_cfg``.
"""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='deit-tiny',
        img_size=224,
        patch_size=16),
    neck=None,
    head=dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=1000,
        in_channels=192,
        loss=dict(
            type='mmpretrain.LabelSmoothLoss',
            label_smooth_val=0.1,
            mode='original')),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=.02),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
    ])
