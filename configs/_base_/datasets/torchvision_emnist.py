"""EMNIST's letters: 26 classes, 124,800 images to train on, 20,800 to test."""
_base_ = './torchvision_mnist.py'
data_preprocessor = dict(num_classes=26, mean=[43.9], std=[84.4])
train_dataloader = dict(dataset=dict(name='EMNIST', split='letters'))
val_dataloader = dict(dataset=dict(name='EMNIST', split='letters'))
test_dataloader = val_dataloader
