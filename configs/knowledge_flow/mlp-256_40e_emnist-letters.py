r"""MLP of 256 and 256 units on EMNIST's letters.

    python tools/train.py \
    configs/knowledge_flow/mlp-256_40e_emnist-letters.py

Paper: Knowledge Flow (ICLR 2019), Table 5, Baseline: 9.20 % error (90.80 %
top-1).
Not yet reproduced. Expected time: some 10 min of a CPU (not measured).
Differences: the network is Chen's for MNIST (2017); the schedule is our
choice.
"""
_base_ = [
    '../_base_/models/mlp.py',
    '../_base_/datasets/torchvision_emnist.py',
    '../_base_/schedules/mlp.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(hidden=(256, 256), dropout=0.2),
    head=dict(num_classes=26, in_channels=256))
param_scheduler = dict(milestones=[20, 30])
train_cfg = dict(max_epochs=40)
