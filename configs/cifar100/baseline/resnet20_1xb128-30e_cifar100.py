r"""ResNet-20 on CIFAR-100, 30 epochs.

    python tools/train.py \
    configs/cifar100/baseline/resnet20_1xb128-30e_cifar100.py

Not an experiment of the paper: the student of ``--scale medium``, see
docs/reproduce.md.
Expected: not measured yet.
"""
_base_ = [
    '../../_base_/models/cifar_resnet.py',
    '../../_base_/datasets/cifar100_folders.py',
    '../../_base_/schedules/cifar100_short.py',
    '../../_base_/default_runtime.py',
]
model = dict(backbone=dict(depth=20))
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=30, val_interval=5)
