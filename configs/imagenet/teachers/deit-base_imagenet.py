r"""DeiT-Base on ImageNet: a teacher of Table 3, with public weights.

    python tools/model_converters/convert.py DOWNLOADED \
        checkpoints/deit-base.pth --from timm \
        --config configs/imagenet/teachers/deit-base_imagenet.py
    python tools/test.py \
    configs/imagenet/teachers/deit-base_imagenet.py checkpoints/deit-base.pth

Paper: MTKD-RL (AAAI 2025), Table 3, teacher pool: 81.80 % top-1.
Not yet run. Weights: timm's ``deit_base_patch16_224.fb_in1k``, converted by
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
model = dict(
    backbone=dict(arch='deit-base', drop_path_rate=0.1),
    head=dict(in_channels=768))
