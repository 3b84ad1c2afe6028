"""CaiT-S24 at 224 pixels for ImageNet, a teacher of Table 3.

timm's network. Weights: its ``cait_s24_224.fb_dist_in1k`` (the paper prints
83.36 %), which need no conversion: name the file as ``checkpoint``.
"""
model = dict(
    type='mmkd_rl.TimmClassifier',
    model_name='cait_s24_224',
    num_classes=1000,
    loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0))
