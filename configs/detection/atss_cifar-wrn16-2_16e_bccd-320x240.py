"""ATSS with WRN-16-2 on blood cells: a teacher for small detectors.

    python tools/train.py \
    configs/detection/atss_cifar-wrn16-2_16e_bccd-320x240.py

Another kind of backbone and of detector than the student's: one anchor at each
location, and objects assigned to them by statistics. Results:
docs/results/detection.md.
"""
_base_ = './retinanet_cifar-wrn16-2_16e_bccd-320x240.py'
model = dict(
    type='ATSS',
    neck=dict(out_channels=96),
    bbox_head=dict(
        _delete_=True,
        type='ATSSHead',
        num_classes=3,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16),
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=5,
            scales_per_octave=1, strides=[8, 16, 32]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.],
            target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25,
            loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    train_cfg=dict(
        _delete_=True, assigner=dict(type='ATSSAssigner', topk=9),
        allowed_border=-1, pos_weight=-1, debug=False))
