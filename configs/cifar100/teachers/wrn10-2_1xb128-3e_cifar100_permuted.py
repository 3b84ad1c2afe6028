r"""WRN-10-2 on CIFAR-100 with its classes permuted, 3 epochs.

    python tools/train.py \
    configs/cifar100/teachers/wrn10-2_1xb128-3e_cifar100_permuted.py

Not an experiment of the paper: the teacher that is wrong, for the runs of
minutes with one spoiled teacher. Its accuracy is measured on the true labels,
so a good one would be bad news.
"""
_base_ = './wrn10-2_1xb128-3e_cifar100.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PermuteLabels', num_classes=100),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
