"""A small RetinaNet on blood cells, with a backbone for 32x32 images.

    python tools/train.py \
    configs/downstream/retinanet_cifar-resnet8_8e_bccd-320x240.py \
    --backbone-from work_dirs/RUN

Not an experiment of the paper: a transfer of minutes on a CPU core, see
docs/results/downstream.md. Without ``--backbone-from`` it is trained from
random weights.
Data: https://github.com/Shenggan/BCCD_Dataset (205 training and 87 validation
images, three classes) as ``data/bccd``: ``train/``, ``val/``, ``train.json``
and ``val.json`` in COCO's format.
"""
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py',
          'mmdet::_base_/default_runtime.py',
          '../_base_/downstream_small.py']

data_root = 'data/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
scale = (320, 240)

model = dict(
    data_preprocessor=dict(
        # those of the configs for CIFAR-100
        mean=[129.304, 124.070, 112.434],
        std=[68.170, 65.392, 70.418],
        pad_size_divisor=16),
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.CifarResNet',
        depth=8,
        out_indices=(0, 1, 2),
        stem_pool=4),
    neck=dict(
        in_channels=[16, 32, 64],
        out_channels=64,
        num_outs=3,
        norm_cfg=dict(type='BN')),
    bbox_head=dict(
        num_classes=3,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='BN'),
        # Cells are about 20 (platelets) to 100 pixels high.
        anchor_generator=dict(octave_base_scale=2.5, strides=[8, 16, 32])),
    test_cfg=dict(nms_pre=300, max_per_img=60))

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=scale, keep_ratio=True),
            dict(type='RandomFlip', prob=[0.25, 0.25, 0.25],
                 direction=['horizontal', 'vertical', 'diagonal']),
            dict(type='PackDetInputs'),
        ]))
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=scale, keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs',
                 meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                            'scale_factor')),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=data_root + 'val.json', metric='bbox')
test_evaluator = val_evaluator

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=0,
         convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8, val_interval=2)
