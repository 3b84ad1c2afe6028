"""Three teachers of minutes on a CPU core, see docs/results/cifar100.md."""
teachers = [
    dict(
        name='resnet14',
        config='mmkd_rl::cifar100/teachers/resnet14_1xb128-3e_cifar100.py',
        checkpoint='work_dirs/resnet14_1xb128-3e_cifar100/epoch_3.pth'),
    dict(
        name='resnet20',
        config='mmkd_rl::cifar100/teachers/resnet20_1xb128-2e_cifar100.py',
        checkpoint='work_dirs/resnet20_1xb128-2e_cifar100/epoch_2.pth'),
    dict(
        name='wrn10-2',
        config='mmkd_rl::cifar100/teachers/wrn10-2_1xb128-3e_cifar100.py',
        checkpoint='work_dirs/wrn10-2_1xb128-3e_cifar100/epoch_3.pth'),
]
