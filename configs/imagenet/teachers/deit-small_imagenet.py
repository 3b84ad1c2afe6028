r"""DeiT-Small on ImageNet: a teacher of Table 3, with public weights.

    python tools/model_converters/convert.py DOWNLOADED \
        checkpoints/deit-small.pth --from timm \
        --config configs/imagenet/teachers/deit-small_imagenet.py
    python tools/test.py \
    configs/imagenet/teachers/deit-small_imagenet.py checkpoints/deit-small.pth

Paper: MTKD-RL (AAAI 2025), Table 3, teacher pool: 79.82 % top-1.
Not yet run. Weights: timm's ``deit_small_patch16_224.fb_in1k``, converted by
the first command.
Differences: none known; the paper does not say which weights it took, these
have its architecture.
"""
_base_ = [
    '../../_base_/models/imagenet_deit.py',
    '../../_base_/datasets/imagenet_deit.py',
    '../../_base_/schedules/imagenet_300e_deit.py',
    '../../_base_/imagenet_runtime.py',
]
model = dict(backbone=dict(arch='deit-small'), head=dict(in_channels=384))
