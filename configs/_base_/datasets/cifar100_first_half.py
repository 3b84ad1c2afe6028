"""CIFAR-100's first 50 classes in alphabetical order, all of their images."""
_base_ = './cifar100_folders.py'
data_preprocessor = dict(num_classes=50)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        _delete_=True,
        type='mmkd_rl.ClassSubset',
        dataset={{_base_.train_dataloader.dataset}},
        classes='first-half'))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_rl.ClassSubset',
        dataset={{_base_.val_dataloader.dataset}},
        classes='first-half'))
test_dataloader = val_dataloader
