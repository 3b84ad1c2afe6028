"""DeiT-Base at 224 pixels for ImageNet, a teacher of Table 3.

Weights of 81.8 % top-1: timm's ``deit_base_patch16_224.fb_in1k``, which
``tools/model_converters/convert.py --from timm`` makes into a checkpoint of
this model.
MMPretrain has the same, converted, as ``deit-base_3rdparty_in1k``.
Here without mixup and the like: a training config adds ``train_cfg``.
"""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='deit-base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1),
    neck=None,
    head=dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(
            type='mmpretrain.LabelSmoothLoss',
            label_smooth_val=0.1,
            mode='original')),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=.02),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
    ])
