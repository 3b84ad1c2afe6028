r"""ResNet-50 on ImageNet, 100 epochs: the largest backbone of Table 4, alone.

    bash tools/dist_train.sh \
    configs/imagenet/baseline/resnet50_100e_imagenet.py 8

Paper: MTKD-RL (AAAI 2025), Table 4, starts detectors from a ResNet-50 that was
trained on ImageNet, alone and by MTKD-RL; it prints no accuracy of either.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: none known. The paper does not name this student's teachers;
`--distill mtkd_rl --pool imagenet_table2` has those of its other ResNets, one
of which is a ResNet-50 as well.
"""
_base_ = [
    '../../_base_/models/imagenet_resnet.py',
    '../../_base_/datasets/imagenet.py',
    '../../_base_/schedules/imagenet_100e.py',
    '../../_base_/imagenet_runtime.py',
]
