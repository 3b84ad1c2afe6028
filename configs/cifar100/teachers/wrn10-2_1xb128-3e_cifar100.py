r"""WRN-10-2 on CIFAR-100, 3 epochs.

    python tools/train.py \
    configs/cifar100/teachers/wrn10-2_1xb128-3e_cifar100.py

Not an experiment of the paper: a teacher for runs of minutes on a CPU, see
docs/results/cifar100.md.
Expected: 29.32 % top-1, 6 min of one CPU core.
"""
_base_ = [
    '../../_base_/models/cifar_wrn.py',
    '../../_base_/datasets/cifar100_folders.py',
    '../../_base_/schedules/cifar100_short.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(depth=10, widen_factor=2), head=dict(in_channels=128))
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=3)
