r"""Chen's STL-10 network on CIFAR-10, 96x96: a teacher.

    python tools/train.py \
    configs/knowledge_flow/convnet-stl_100e_cifar10.py

Paper: Knowledge Flow (ICLR 2019), Table 6; the error of the teacher is not
printed.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the network is Chen's for STL-10 (2017); the schedule is our
choice, as is enlarging the images, without which the network does not fit.
"""
_base_ = [
    '../_base_/models/chen_stl10.py',
    '../_base_/datasets/torchvision_cifar10.py',
    '../_base_/schedules/convnet.py',
    '../_base_/default_runtime.py',
]
train_pipeline = [
    dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.Resize', scale=96),
    dict(type='mmpretrain.PackInputs'),
]
test_pipeline = [
    dict(type='mmpretrain.Resize', scale=96),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
param_scheduler = dict(milestones=[50, 80])
train_cfg = dict(max_epochs=100)
