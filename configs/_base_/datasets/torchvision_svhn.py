"""SVHN, all 604,388 images to train on, not augmented.

As Huang et al. (CVPR 2017) have it: training set and extra images.

Torchvision's files in ``data/torchvision``; another place: ``--cfg-options
train_dataloader.dataset.datasets.0.data_root=DIR
train_dataloader.dataset.datasets.1.data_root=DIR
val_dataloader.dataset.data_root=DIR test_dataloader.dataset.data_root=DIR``,
and once ``...download=True`` likewise to get them.
"""
_base_ = './torchvision_cifar10.py'
# to [-1, 1]; Huang et al. divide by 255
data_preprocessor = dict(
    mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
train_pipeline = [dict(type='mmpretrain.PackInputs')]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='mmkd_rl.TorchVisionDataset',
                name='SVHN',
                split=split,
                data_root={{_base_.data_root}},
                pipeline=train_pipeline) for split in ('train', 'extra')
        ]))
val_dataloader = dict(dataset=dict(name='SVHN'))
test_dataloader = val_dataloader
