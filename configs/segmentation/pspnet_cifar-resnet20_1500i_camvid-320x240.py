"""PSPNet with ResNet-20 on CamVid: a teacher for small segmentors.

    python tools/train.py \
    configs/segmentation/pspnet_cifar-resnet20_1500i_camvid-320x240.py \
    --backbone-from work_dirs/RUN_OF_RESNET20

Like the student of ``configs/downstream``, with a deeper backbone, a wider
head and five times the updates. Results: docs/results/segmentation.md.
"""
_base_ = '../downstream/pspnet_cifar-resnet8_300i_camvid-320x240.py'
model = dict(backbone=dict(depth=20), decode_head=dict(channels=128))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0., power=0.9, by_epoch=False, begin=50,
         end=1500),
]
train_cfg = dict(max_iters=1500, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
