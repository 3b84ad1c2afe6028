r"""ResNet-8 alone on CIFAR-100, 2 epochs, float32.

    python tools/train.py \
    configs/cifar100/baseline/resnet8_1xb128-2e-fp32_cifar100.py

Not an experiment of the paper: a backbone for the small transfers,
see docs/results/downstream.md.
Expected: not measured yet.
"""
_base_ = [
    '../../_base_/models/cifar_resnet.py',
    '../../_base_/datasets/cifar100_folders.py',
    '../../_base_/schedules/cifar100_short.py',
    '../../_base_/default_runtime.py',
]
model = dict(backbone=dict(depth=8))
train_dataloader = dict(batch_size=128)
# In float32, which all processors compute at full speed.
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_epochs=2, val_interval=2)
