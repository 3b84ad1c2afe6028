r"""Wide ResNet-50-2 on ImageNet: a teacher of Table 2, with public weights.

    python tools/model_converters/convert.py DOWNLOADED \
        checkpoints/wide-resnet50-2.pth --from torchvision \
        --config configs/imagenet/teachers/wide-resnet50-2_imagenet.py
    python tools/test.py \
    configs/imagenet/teachers/wide-resnet50-2_imagenet.py checkpoints/wide-resnet50-2.pth

Paper: MTKD-RL (AAAI 2025), Table 2, teacher pool: 78.47 % top-1.
Not yet run. Weights: torchvision's ``Wide_ResNet50_2_Weights.IMAGENET1K_V1``,
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
model = dict(backbone=dict(base_channels=128, expansion=2))
