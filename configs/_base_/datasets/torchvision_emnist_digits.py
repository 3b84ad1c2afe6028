"""EMNIST's digits: 10 classes, 240,000 images to train on, 40,000 to test."""
_base_ = './torchvision_mnist.py'
data_preprocessor = dict(num_classes=10, mean=[43.9], std=[84.4])
train_dataloader = dict(dataset=dict(name='EMNIST', split='digits'))
val_dataloader = dict(dataset=dict(name='EMNIST', split='digits'))
test_dataloader = val_dataloader
