"""MNIST, 28x28, grey, not augmented."""
_base_ = './torchvision_cifar10.py'
data_preprocessor = dict(mean=[33.318], std=[78.567])
train_pipeline = [dict(type='mmpretrain.PackInputs')]
train_dataloader = dict(
    batch_size=128, dataset=dict(name='MNIST', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(name='MNIST'))
test_dataloader = val_dataloader
