"""ImageNet for ViTs, augmented as DeiT does; batch 1024 on 8 GPUs.

Random crops of 224, flips, RandAugment (2 of magnitude 9), random erasing
(1/4), mixup (0.8) or CutMix (1.0) on every batch, each image three times an
epoch's permutation (repeated augmentation). Folders as in ``imagenet.py``.
Mixup makes targets of probabilities; all losses and strategies take them.
"""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'
data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    batch_augments=dict(augments=[
        dict(type='mmpretrain.Mixup', alpha=0.8),
        dict(type='mmpretrain.CutMix', alpha=1.0),
    ]))
train_dataloader = dict(
    batch_size=128,
    drop_last=True,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='mmpretrain.RepeatAugSampler', shuffle=True))
val_dataloader = dict(
    batch_size=128,
    persistent_workers=True,
    pin_memory=True)
test_dataloader = val_dataloader
