"""Teachers of another architecture than the student, Sec. 7.5."""
teachers = [
    dict(
        name='cifar100',
        config='mmkd_rl::knowledge_flow/wrn28-4_300e_cifar100.py',
        checkpoint='work_dirs/wrn28-4_300e_cifar100/epoch_300.pth'),
    dict(
        name='svhn',
        config='mmkd_rl::knowledge_flow/wrn28-4_40e_svhn.py',
        checkpoint='work_dirs/wrn28-4_40e_svhn/epoch_40.pth'),
]
