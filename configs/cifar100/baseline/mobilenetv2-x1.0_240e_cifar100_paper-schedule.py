r"""MobileNetV2 alone, by the schedule of the paper's appendix.

    python tools/train.py \
    configs/cifar100/baseline/mobilenetv2-x1.0_240e_cifar100_paper-schedule.py

Paper: MTKD-RL (AAAI 2025), Table 1, Baseline: 69.17 +- 0.18 % top-1.
Not yet reproduced. Expected time: about 1.9 h on one RTX 4090, by the paper's
29 s an epoch for ShuffleNetV2 (Table 6c); not measured.
Differences: none known.
"""
_base_ = [
    '../../_base_/models/cifar_mobilenetv2-x1.0.py',
    '../../_base_/datasets/cifar100_folders.py',
    '../../_base_/schedules/cifar100_240e_paper.py',
    '../../_base_/default_runtime.py',
]
