r"""ResNet-14 on CIFAR-100's classes 0 to 49: a good teacher.

    python tools/train.py \
    configs/knowledge_flow/resnet14_5e_first-half.py

Not an experiment of the paper: its Sec. 4.2 in minutes on a CPU, see
docs/results/knowledge_flow.md.
Run, see there. Expected time: 2 to 3 min of one CPU core.
Differences: task, networks and schedule are our choice.
"""
_base_ = [
    '../_base_/models/cifar_resnet.py',
    '../_base_/datasets/cifar100_first_half.py',
    '../_base_/schedules/cifar100_short.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(depth=14), head=dict(num_classes=50))
train_cfg = dict(max_epochs=5)
