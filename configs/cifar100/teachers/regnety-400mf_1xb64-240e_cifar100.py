r"""RegNetY-400MF on CIFAR-100, 240 epochs: a teacher of Table 1.

    python tools/train.py \
    configs/cifar100/teachers/regnety-400mf_1xb64-240e_cifar100.py

Paper: MTKD-RL (AAAI 2025), Table 1, teacher pool: 78.87 % top-1.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: none known; the paper gives no schedule for its teachers, this is
the students'.
"""
_base_ = [
    '../../_base_/models/cifar_regnet.py',
    '../../_base_/datasets/cifar100_folders.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../../_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='regnety_400mf'))
