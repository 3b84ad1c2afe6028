"""DeepLabV3 with ResNet-14 on CamVid: a teacher for small segmentors.

    python tools/train.py \
    configs/segmentation/deeplabv3_cifar-resnet14_1500i_camvid-320x240.py \
    --backbone-from work_dirs/RUN_OF_RESNET14

Another head than the student's. Results: docs/results/segmentation.md.
"""
_base_ = './pspnet_cifar-resnet20_1500i_camvid-320x240.py'
model = dict(
    backbone=dict(depth=14),
    decode_head=dict(
        _delete_=True,
        type='ASPPHead',
        in_channels=64,
        in_index=1,
        channels=64,
        # Of images with a quarter of the usual side.
        dilations=(1, 3, 6, 9),
        dropout_ratio=0.1,
        num_classes=11,
        ignore_index=11,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0,
            avg_non_ignore=True)))
