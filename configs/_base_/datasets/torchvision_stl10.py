"""STL-10's 5,000 labelled images; crops after padding by 12, flips."""
_base_ = './torchvision_cifar10.py'
data_preprocessor = dict(
    mean=[113.9, 112.2, 103.7], std=[66.4, 65.6, 69.3])
train_pipeline = [
    dict(type='mmpretrain.RandomCrop', crop_size=96, padding=12),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(name='STL10', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(name='STL10'))
test_dataloader = val_dataloader
