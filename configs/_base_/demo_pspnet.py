"""MMSegmentation's PSPNet, made small, on a CIFAR-size student.

The backbone's stem and first stage stay frozen, as in demo_mask_rcnn.py.
"""

model = dict(
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[100.0, 100.0, 100.0],
        std=[64.0, 64.0, 64.0],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(128, 128)),
    backbone=dict(
        type='mmkd_rl.CifarResNet',
        depth=8,
        out_indices=(2, ),
        frozen_stages=1,
        norm_eval=True,
        channels_last=True),
    decode_head=dict(
        type='mmseg.PSPHead',
        in_channels=64,
        in_index=0,
        channels=64,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(
            type='mmseg.CrossEntropyLoss',
            use_sigmoid=False,
            # Nine pixels of ten are background: unweighted, nothing else is
            # learned in so short a time.
            class_weight=[0.1] + [1.0] * 10,
            loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
