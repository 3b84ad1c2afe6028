"""RetinaNet with ResNet-8x4 on blood cells: a teacher for small detectors.

    python tools/train.py \
    configs/detection/retinanet_cifar-resnet8x4_16e_bccd-320x240.py

The student's kind of detector with a backbone of four times its width, trained
twice as long. Results: docs/results/detection.md.
"""
_base_ = './retinanet_cifar-resnet8_8e_bccd-320x240.py'
model = dict(
    backbone=dict(width=4),
    neck=dict(in_channels=[64, 128, 256]))
train_cfg = dict(max_epochs=16, val_interval=4)
