"""The networks of Knowledge Flow's Table 3, each a teacher of another task."""
teachers = [
    dict(
        name='cifar10',
        config='mmkd_rl::knowledge_flow/densenet100-24_300e_cifar10.py',
        checkpoint='work_dirs/densenet100-24_300e_cifar10/epoch_300.pth'),
    dict(
        name='cifar100',
        config='mmkd_rl::knowledge_flow/densenet100-24_300e_cifar100.py',
        checkpoint='work_dirs/densenet100-24_300e_cifar100/epoch_300.pth'),
    dict(
        name='svhn',
        config='mmkd_rl::knowledge_flow/densenet100-24_40e_svhn.py',
        checkpoint='work_dirs/densenet100-24_40e_svhn/epoch_40.pth'),
]
