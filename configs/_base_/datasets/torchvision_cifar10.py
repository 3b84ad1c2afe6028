"""CIFAR-10: random crops after padding by 4, flips.

Torchvision's files in ``data/torchvision``; another place: ``--cfg-options
train_dataloader.dataset.data_root=DIR val_dataloader.dataset.data_root=DIR
test_dataloader.dataset.data_root=DIR``, and once
``train_dataloader.dataset.download=True`` to get them.
"""
data_root = 'data/torchvision'

data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=10,
    # of the training set, in 0..255
    mean=[125.307, 122.961, 113.865],
    std=[62.993, 62.089, 66.705],
    # torchvision's images are RGB already, or grey
    to_rgb=False)

train_pipeline = [
    dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]
test_pipeline = [dict(type='mmpretrain.PackInputs')]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmkd_rl.TorchVisionDataset',
        name='CIFAR10',
        data_root=data_root,
        pipeline=train_pipeline))

val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmkd_rl.TorchVisionDataset',
        name='CIFAR10',
        data_root=data_root,
        test_mode=True,
        pipeline=test_pipeline))
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
