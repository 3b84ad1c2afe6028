r"""ResNet-8 alone on a fifth of CIFAR-100, 6 epochs.

    python tools/train.py \
    configs/cifar100/baseline/resnet8_1xb64-6e_cifar100-fifth.py

Not an experiment of the paper: the student of the runs of minutes in
docs/results/cifar100.md, without teachers.
Expected: 14.43 % top-1 (mean of three seeds), 1.5 min of one CPU core.
"""
_base_ = [
    '../../_base_/models/cifar_resnet.py',
    '../../_base_/datasets/cifar100_fifth.py',
    '../../_base_/schedules/cifar100_short.py',
    '../../_base_/default_runtime.py',
]
model = dict(backbone=dict(depth=8))
# Half of the base's, as is the batch.
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(max_epochs=6, val_interval=3)
