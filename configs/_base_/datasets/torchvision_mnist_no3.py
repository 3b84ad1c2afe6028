"""MNIST without the digit 3 in the training set; tested on all digits."""
_base_ = './torchvision_mnist.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_rl.ClassSubset',
        dataset={{_base_.train_dataloader.dataset}},
        without=[3],
        relabel=False))
