r"""ResNet-50 on ImageNet: a teacher of Table 2, with public weights.

    python tools/model_converters/convert.py DOWNLOADED \
        checkpoints/resnet50.pth --from torchvision \
        --config configs/imagenet/teachers/resnet50_imagenet.py
    python tools/test.py \
    configs/imagenet/teachers/resnet50_imagenet.py checkpoints/resnet50.pth

Paper: MTKD-RL (AAAI 2025), Table 2, teacher pool: 76.13 % top-1.
Not yet run. Weights: torchvision's ``ResNet50_Weights.IMAGENET1K_V1``,
converted by the first command.
Differences: none known; the paper does not say which weights it took, these
have its accuracy.
"""
_base_ = [
    '../../_base_/models/imagenet_resnet.py',
    '../../_base_/datasets/imagenet.py',
    '../../_base_/schedules/imagenet_100e.py',
    '../../_base_/imagenet_runtime.py',
]
