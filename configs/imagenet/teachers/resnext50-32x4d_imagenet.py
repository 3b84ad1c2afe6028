r"""ResNeXt-50 (32x4d) on ImageNet: a teacher of Table 2, with public weights.

    python tools/model_converters/convert.py DOWNLOADED \
        checkpoints/resnext50-32x4d.pth --from torchvision \
        --config configs/imagenet/teachers/resnext50-32x4d_imagenet.py
    python tools/test.py \
    configs/imagenet/teachers/resnext50-32x4d_imagenet.py checkpoints/resnext50-32x4d.pth

Paper: MTKD-RL (AAAI 2025), Table 2, teacher pool: 77.62 % top-1.
Not yet run. Weights: torchvision's ``ResNeXt50_32X4D_Weights.IMAGENET1K_V1``,
converted by the first command.
Differences: none known; the paper does not say which weights it took, these
have its accuracy.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/imagenet_resnet.py',
    '../../_base_/datasets/imagenet.py',
    '../../_base_/schedules/imagenet_100e.py',
    '../../_base_/imagenet_runtime.py',
]
model = dict(
    backbone=dict(
        type='mmpretrain.ResNeXt', groups=32, width_per_group=4))
