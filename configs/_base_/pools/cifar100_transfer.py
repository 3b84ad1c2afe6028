"""Two teachers of minutes on a CPU core, see docs/results/downstream.md."""
teachers = [
    dict(
        name='resnet14',
        config='mmkd_rl::cifar100/teachers/'
        'resnet14_1xb128-3e-fp32_cifar100.py',
        checkpoint='work_dirs/resnet14_1xb128-3e-fp32_cifar100/epoch_3.pth'),
    dict(
        name='resnet20',
        config='mmkd_rl::cifar100/teachers/'
        'resnet20_1xb128-3e-fp32_cifar100.py',
        checkpoint='work_dirs/resnet20_1xb128-3e-fp32_cifar100/epoch_3.pth'),
]
