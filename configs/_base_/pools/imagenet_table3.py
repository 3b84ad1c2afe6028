"""The three teachers of MTKD-RL's Table 3, ViTs with public weights.

Their configs (configs/imagenet/teachers) say which file to download; it is
looked for in ``checkpoints/``. Another place for one of them: ``--cfg-options
model.teachers.0.checkpoint=FILE``.
"""
teachers = [
    dict(
        name='cait-s24',
        config='mmkd_rl::imagenet/teachers/cait-s24_imagenet.py',
        checkpoint='checkpoints/cait-s24.pth'),
    dict(
        name='deit-small',
        config='mmkd_rl::imagenet/teachers/deit-small_imagenet.py',
        checkpoint='checkpoints/deit-small.pth'),
    dict(
        name='deit-base',
        config='mmkd_rl::imagenet/teachers/deit-base_imagenet.py',
        checkpoint='checkpoints/deit-base.pth'),
]
