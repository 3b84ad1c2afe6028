"""RetinaNet with WRN-16-2 on blood cells: a teacher for small detectors.

    python tools/train.py \
    configs/detection/retinanet_cifar-wrn16-2_16e_bccd-320x240.py

Another backbone than the student's and the same anchors, so that class scores
can be compared. Results: docs/results/detection.md.
"""
_base_ = './retinanet_cifar-resnet8_8e_bccd-320x240.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.CifarWideResNet',
        depth=16,
        widen_factor=2,
        out_indices=(0, 1, 2),
        stem_pool=4),
    neck=dict(in_channels=[32, 64, 128]))
train_cfg = dict(max_epochs=16, val_interval=4)
