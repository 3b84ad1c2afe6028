"""DeiT-Small at 224 pixels for ImageNet, a teacher of Table 3.

Weights of 79.8 % top-1: timm's ``deit_small_patch16_224.fb_in1k``, which
``tools/model_converters/convert.py --from timm`` makes into a checkpoint of
this model.
MMPretrain's own ``deit-small_4xb256_in1k`` has 80.69 %.
Here without mixup and the like: a training config adds ``train_cfg``.
"""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16),
    neck=None,
    head=dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=1000,
        in_channels=384,
        loss=dict(
            type='mmpretrain.LabelSmoothLoss',
            label_smooth_val=0.1,
            mode='original')),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=.02),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
    ])
