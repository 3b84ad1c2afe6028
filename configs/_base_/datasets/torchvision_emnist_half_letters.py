"""The first 13 of EMNIST's letters."""
_base_ = './torchvision_emnist_letters.py'
data_preprocessor = dict(num_classes=13)
train_dataloader = dict(
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
