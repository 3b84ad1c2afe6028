"""CaiT-XXS24 at 224 pixels for ImageNet, a student of Table 3.

timm's network. Weights: ``cait_xxs24_224.fb_dist_in1k``, themselves
distilled; the paper's student starts from none (77.32 % alone).
Here without mixup and the like: a training config adds ``train_cfg``.
"""
model = dict(
    type='mmkd_rl.TimmClassifier',
    model_name='cait_xxs24_224',
    num_classes=1000,
    loss=dict(
        type='mmpretrain.LabelSmoothLoss',
        label_smooth_val=0.1,
        mode='original'))
