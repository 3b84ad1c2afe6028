"""CIFAR-100: random crops after padding by 4, flips."""
_base_ = './torchvision_cifar10.py'
data_preprocessor = dict(
    num_classes=100,
    mean=[129.304, 124.070, 112.434],
    std=[68.170, 65.392, 70.418])
train_dataloader = dict(dataset=dict(name='CIFAR100'))
val_dataloader = dict(dataset=dict(name='CIFAR100'))
test_dataloader = val_dataloader
