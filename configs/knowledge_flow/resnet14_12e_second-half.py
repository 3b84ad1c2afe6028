r"""ResNet-14 alone on a fifth of CIFAR-100's classes 50 to 99.

    python tools/train.py \
    configs/knowledge_flow/resnet14_12e_second-half.py

Not an experiment of the paper: its Sec. 4.2 in minutes on a CPU, see
docs/results/knowledge_flow.md.
Run, see there. Expected time: 2 to 3 min of one CPU core.
Differences: task, networks and schedule are our choice.
"""
_base_ = [
    '../_base_/models/cifar_resnet.py',
    '../_base_/datasets/cifar100_second_half_fifth.py',
    '../_base_/schedules/cifar100_short.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(depth=14), head=dict(num_classes=50))
# Half of the base's, as is the batch.
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(max_epochs=12, val_interval=4)
