"""The four teachers of MTKD-RL's Table 2, from torchvision's weights.

Their configs (configs/imagenet/teachers) say which file to download; it is
looked for in ``checkpoints/``. Another place for one of them: ``--cfg-options
model.teachers.0.checkpoint=FILE``.
"""
teachers = [
    dict(
        name='resnet50',
        config='mmkd_rl::imagenet/teachers/resnet50_imagenet.py',
        checkpoint='checkpoints/resnet50.pth'),
    dict(
        name='resnet101',
        config='mmkd_rl::imagenet/teachers/resnet101_imagenet.py',
        checkpoint='checkpoints/resnet101.pth'),
    dict(
        name='wide-resnet50-2',
        config='mmkd_rl::imagenet/teachers/wide-resnet50-2_imagenet.py',
        checkpoint='checkpoints/wide-resnet50-2.pth'),
    dict(
        name='resnext50-32x4d',
        config='mmkd_rl::imagenet/teachers/resnext50-32x4d_imagenet.py',
        checkpoint='checkpoints/resnext50-32x4d.pth'),
]
