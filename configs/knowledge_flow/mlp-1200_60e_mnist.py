r"""MLP of 1200 and 1200 units on MNIST: the teacher.

    python tools/train.py \
    configs/knowledge_flow/mlp-1200_60e_mnist.py

Paper: Knowledge Flow (ICLR 2019), Table 4, MNIST; the error of its teacher is
not printed (Hinton et al., 2015, whose setup it is: 0.67 %).
Not yet reproduced. Expected time: some 10 min of a CPU (not measured).
Differences: schedule and dropout of 0.5 in place of constraints on the weights
are our choice.
"""
_base_ = [
    '../_base_/models/mlp.py',
    '../_base_/datasets/torchvision_mnist.py',
    '../_base_/schedules/mlp.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(hidden=(1200, 1200), dropout=0.5),
    head=dict(in_channels=1200))
train_pipeline = [
    # Up to two pixels to each side, as Hinton et al. have it.
    dict(type='mmpretrain.RandomCrop', crop_size=28, padding=2),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
