"""MMDetection's Mask R-CNN, made small, on a CIFAR-size student.

The digits are 10 to 40 pixels high, so two pyramid levels (strides 4 and 8)
see them all. The backbone's stem and first stage stay frozen, as MMDetection's
configs have it for ImageNet backbones. No channels_last: MMCV's RoIAlign reads
maps in PyTorch's default memory format only and does not check.
"""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']

model = dict(
    type='mmdet.MaskRCNN',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[100.0, 100.0, 100.0],
        std=[64.0, 64.0, 64.0],
        pad_size_divisor=8),
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.CifarResNet',
        depth=8,
        out_indices=(2, ),
        frozen_stages=1,
        norm_eval=True),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[64],
        out_channels=64,
        num_outs=2,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
        norm_cfg=dict(type='BN')),
    rpn_head=dict(
        type='mmdet.RPNHead',
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(
            type='mmdet.AnchorGenerator', scales=[4], ratios=[1.0, 2.0],
            strides=[4, 8])),
    roi_head=dict(
        type='mmdet.StandardRoIHead',
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor',
            out_channels=64,
            featmap_strides=[4],
            roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(
            type='mmdet.Shared2FCBBoxHead',
            in_channels=64,
            fc_out_channels=128,
            num_classes=10),
        mask_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor',
            out_channels=64,
            featmap_strides=[4],
            roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(
            type='mmdet.FCNMaskHead',
            num_convs=2,
            in_channels=64,
            conv_out_channels=32,
            num_classes=10)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=50),
        rcnn=dict(sampler=dict(num=48))),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50),
        rcnn=dict(max_per_img=30)))
