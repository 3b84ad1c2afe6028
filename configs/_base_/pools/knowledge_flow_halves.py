"""Teachers that saw CIFAR-100's classes 0 to 49 only, by task."""
teachers = [
    dict(
        name='classes',
        config='mmkd_rl::knowledge_flow/resnet14_5e_first-half.py',
        checkpoint='work_dirs/resnet14_5e_first-half/epoch_5.pth'),
    dict(
        name='rotations',
        config='mmkd_rl::knowledge_flow/resnet14_5e_first-half_rotations.py',
        checkpoint='work_dirs/resnet14_5e_first-half_rotations/epoch_5.pth'),
    dict(
        name='noise',
        config='mmkd_rl::knowledge_flow/resnet14_5e_first-half_noise.py',
        checkpoint='work_dirs/resnet14_5e_first-half_noise/epoch_5.pth'),
]
