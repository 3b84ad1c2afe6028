"""A fifth of CIFAR-100's training images, 10,000 drawn once, and all of its
test images.

What teachers that saw all images know about the rest, a student can only have
from them. Another place: ``--cfg-options
train_dataloader.dataset.dataset.data_root=DIR/train
val_dataloader.dataset.data_root=DIR/test
test_dataloader.dataset.data_root=DIR/test``.
"""
_base_ = './cifar100_folders.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        # Its "test" side is the one fold, its "training" side the others.
        type='mmpretrain.KFoldDataset',
        fold=0,
        num_splits=5,
        test_mode=True,
        seed=0,
        dataset={{_base_.train_dataloader.dataset}}))
