"""SVHN, all 604,388 images to train on, not augmented.

As Huang et al. (CVPR 2017) have it: training set and extra images.

Torchvision's files in ``data/torchvision``; another place: ``--cfg-options
train_dataloader.dataset.datasets.0.data_root=DIR
train_dataloader.dataset.datasets.1.data_root=DIR
val_dataloader.dataset.data_root=DIR test_dataloader.dataset.data_root=DIR``,
and once ``...download=True`` likewise to get them.
"""
data_root = 'data/torchvision'

data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=10,
    # to [-1, 1]; Huang et al. divide by 255
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    # torchvision's images are RGB already, or grey
    to_rgb=False)

train_pipeline = [
    dict(type='mmpretrain.PackInputs'),
]
test_pipeline = [dict(type='mmpretrain.PackInputs')]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='mmkd_rl.TorchVisionDataset',
                name='SVHN',
                split=split,
                data_root=data_root,
                pipeline=train_pipeline) for split in ('train', 'extra')
        ]))

val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmkd_rl.TorchVisionDataset',
        name='SVHN',
        data_root=data_root,
        test_mode=True,
        pipeline=test_pipeline))
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
