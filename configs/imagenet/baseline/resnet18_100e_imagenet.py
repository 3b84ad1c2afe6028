r"""ResNet-18 on ImageNet, 100 epochs: a student of Table 2, alone.

    bash tools/dist_train.sh \
    configs/imagenet/baseline/resnet18_100e_imagenet.py 8

Paper: MTKD-RL (AAAI 2025), Table 2, Baseline: 70.35 % top-1, one run.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: none known.
"""
_base_ = [
    '../../_base_/models/imagenet_resnet.py',
    '../../_base_/datasets/imagenet.py',
    '../../_base_/schedules/imagenet_100e.py',
    '../../_base_/imagenet_runtime.py',
]
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
