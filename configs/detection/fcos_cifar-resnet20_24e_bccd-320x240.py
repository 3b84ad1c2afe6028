"""FCOS with ResNet-20 on blood cells: a teacher for small detectors.

    python tools/train.py \
    configs/detection/fcos_cifar-resnet20_24e_bccd-320x240.py

Another kind of detector than the student: points instead of anchors. Results:
docs/results/detection.md.
"""
_base_ = './retinanet_cifar-resnet8x4_24e_bccd-320x240.py'
model = dict(
    type='FCOS',
    backbone=dict(depth=20, width=1),
    neck=dict(in_channels=[16, 32, 64], out_channels=96),
    bbox_head=dict(
        _delete_=True,
        type='FCOSHead',
        num_classes=3,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        norm_cfg=dict(type='BN'),
        strides=[8, 16, 32],
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        conv_bias=True,
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25,
            loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)))
