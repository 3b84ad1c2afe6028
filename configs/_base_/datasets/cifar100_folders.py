"""CIFAR-100 as folders of images, ``train/<class>/*.png``, ``test/...``.

MMPretrain's own ``CIFAR100`` wants the original pickles by their checksum;
folders can be made of any copy (of the original by
``tools/dataset_converters/cifar100.py``). Put them, or a link to them, in
``data/cifar100``, or name another place with
``--cfg-options train_dataloader.dataset.data_root=DIR/train
val_dataloader.dataset.data_root=DIR/test
test_dataloader.dataset.data_root=DIR/test``.

Training images: a random 32x32 crop after padding by 4, flipped in half the
cases, as everywhere in this literature.
"""
data_root = 'data/cifar100/'

data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=100,
    # of the training set, RGB, in 0..255
    mean=[129.304, 124.070, 112.434],
    std=[68.170, 65.392, 70.418],
    to_rgb=True)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmpretrain.CustomDataset',
        data_root=data_root + 'train',
        pipeline=train_pipeline))

val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmpretrain.CustomDataset',
        data_root=data_root + 'test',
        pipeline=test_pipeline))
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
