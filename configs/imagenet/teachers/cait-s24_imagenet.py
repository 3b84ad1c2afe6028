r"""CaiT-S24 on ImageNet: a teacher of Table 3, with public weights.

    python tools/test.py \
    configs/imagenet/teachers/cait-s24_imagenet.py checkpoints/cait-s24.pth

Paper: MTKD-RL (AAAI 2025), Table 3, teacher pool: 83.36 % top-1.
Not yet run. Weights: timm's ``cait_s24_224.fb_dist_in1k``; its file needs no
conversion, put it at ``checkpoints/cait-s24.pth``.
Differences: none known; the paper does not say which weights it took, these
have its architecture.
"""
_base_ = [
    '../../_base_/datasets/imagenet_deit.py',
    '../../_base_/schedules/imagenet_300e_deit.py',
    '../../_base_/imagenet_runtime.py',
]
model = dict(
    type='mmkd_rl.TimmClassifier',
    model_name='cait_s24_224',
    num_classes=1000,
    loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0))
