r"""MLP of 256 and 256 units on EMNIST's digits.

    python tools/train.py \
    configs/knowledge_flow/mlp-256_40e_emnist-digits.py

Paper: Knowledge Flow (ICLR 2019), Table 5, the teacher of Ours (EMNIST digit);
its error is not printed.
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
    head=dict(num_classes=10, in_channels=256))
param_scheduler = dict(milestones=[20, 30])
train_cfg = dict(max_epochs=40)
data_preprocessor = dict(num_classes=10)
train_dataloader = dict(dataset=dict(split='digits'))
val_dataloader = dict(dataset=dict(split='digits'))
test_dataloader = val_dataloader
