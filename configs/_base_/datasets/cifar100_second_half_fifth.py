"""CIFAR-100's classes 50 to 99; of their training images a fifth, 5,000.

A student with few images has something to gain from teachers of other ones.
"""
_base_ = './cifar100_folders.py'
data_preprocessor = dict(num_classes=50)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        # Its "test" side is the one fold, its "training" side the others.
        type='mmpretrain.KFoldDataset',
        fold=0,
        num_splits=5,
        test_mode=True,
        seed=0,
        dataset=dict(
            type='mmkd_rl.ClassSubset',
            dataset={{_base_.train_dataloader.dataset}},
            classes='second-half')))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_rl.ClassSubset',
        dataset={{_base_.val_dataloader.dataset}},
        classes='second-half'))
test_dataloader = val_dataloader
