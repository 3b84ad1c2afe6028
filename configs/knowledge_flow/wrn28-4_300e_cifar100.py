r"""WRN-28-4 on CIFAR-100, 300 epochs: a teacher of another architecture.

    python tools/train.py \
    configs/knowledge_flow/wrn28-4_300e_cifar100.py

Paper: Knowledge Flow (ICLR 2019), Sec. 7.5; no number for a supervised task.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: network and schedule (Table 3's) are our choice; the paper's
ablation is of reinforcement learning.
"""
_base_ = [
    '../_base_/models/cifar_wrn.py',
    '../_base_/datasets/torchvision_cifar100.py',
    '../_base_/schedules/densenet.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(depth=28))
