r"""ResNet-20 on CIFAR-100, 3 epochs, float32.

    python tools/train.py \
    configs/cifar100/teachers/resnet20_1xb128-3e-fp32_cifar100.py

Not an experiment of the paper: a teacher for the small transfers, see
docs/results/downstream.md.
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
# In float32, which all processors compute at full speed.
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_epochs=3, val_interval=3)
