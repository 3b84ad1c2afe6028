"""A small RetinaNet on blood cells: the student of docs/results/detection.md.

    python tools/train.py \
    configs/detection/retinanet_cifar-resnet8_8e_bccd-320x240.py \
    --distill mtkd_rl --teacher NAME=CONFIG:CHECKPOINT ...

The detector of configs/downstream with group norm in its head. All levels go
through the same layers of the head. With batch norm each level has statistics
of its own in training, and all share the running ones in evaluation, which
costs accuracy, and more so if features of the levels differ much.
"""
_base_ = '../downstream/retinanet_cifar-resnet8_8e_bccd-320x240.py'
model = dict(
    bbox_head=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=16)))
