"""ImageNet for CNNs: random crops of 224 and flips, batch 256 on 8 GPUs.

``data/imagenet/{train,val}`` and ``data/imagenet/meta/val.txt`` as MMPretrain
wants them; another place: ``--cfg-options
train_dataloader.dataset.data_root=DIR val_dataloader.dataset.data_root=DIR``.
"""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'
data_preprocessor = dict(type='mmpretrain.ClsDataPreprocessor')
train_dataloader = dict(
    batch_size=32,
    drop_last=True,
    persistent_workers=True,
    pin_memory=True)
val_dataloader = dict(
    persistent_workers=True,
    pin_memory=True)
test_dataloader = val_dataloader
