"""PSPNet with ResNet-20 that knows six of CamVid's 11 classes: an expert.

    python tools/train.py \
    configs/segmentation/pspnet_cifar-resnet20_600i_camvid-320x240-even.py \
    --backbone-from work_dirs/RUN_OF_RESNET20

Even classes: other pixels have no label. As a teacher it takes
class_map=[0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5].
Results: docs/results/segmentation.md.
"""
_base_ = './pspnet_cifar-resnet20_1500i_camvid-320x240.py'
# New label of each old one; 255 is no class.
mapping = [0, 255, 1, 255, 2, 255, 3, 255, 4, 255, 5, 255]
metainfo = dict(_delete_=True, classes=[
    'sky', 'pole', 'pavement', 'sign symbol', 'car', 'bicyclist'])
custom_imports = dict(imports=['mmkd_rl'])
model = dict(decode_head=dict(num_classes=6, ignore_index=255))
train_dataloader = dict(dataset=dict(
    metainfo=metainfo,
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='mmkd_rl.MapLabels', mapping=mapping),
        dict(type='Resize', scale=(320, 240), keep_ratio=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]))
val_dataloader = dict(dataset=dict(
    metainfo=metainfo,
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(320, 240), keep_ratio=True),
        dict(type='LoadAnnotations'),
        dict(type='mmkd_rl.MapLabels', mapping=mapping),
        dict(type='PackSegInputs'),
    ]))
test_dataloader = val_dataloader
val_evaluator = dict(ignore_index=255)
test_evaluator = val_evaluator
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0., power=0.9, by_epoch=False, begin=50,
         end=600),
]
train_cfg = dict(max_iters=600, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
