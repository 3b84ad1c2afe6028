r"""MobileNetV2 on CIFAR-100, 240 epochs: a student of Table 1, alone.

    python tools/train.py \
    configs/cifar100/baseline/mobilenetv2-x1.0_240e_cifar100.py

Paper: MTKD-RL (AAAI 2025), Table 1, Baseline: 69.17 +- 0.18 % top-1.
Not yet reproduced. Expected time: about 1.9 h on one RTX 4090, by the paper's
29 s an epoch for ShuffleNetV2 (Table 6c); not measured.
Differences: the published code's milestones (150, 180, 210) and Nesterov
momentum; the appendix prints 100 and 150. The paper says "MobileNetV2"; its
2.4M parameters and 22.4M multiply-adds are those of width 1.0.
"""
_base_ = [
    '../../_base_/models/cifar_mobilenetv2.py',
    '../../_base_/datasets/cifar100_folders.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../../_base_/default_runtime.py',
]
