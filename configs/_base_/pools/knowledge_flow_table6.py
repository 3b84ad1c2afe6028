"""The teachers of Knowledge Flow's Table 6, for STL-10."""
teachers = [
    dict(
        name='cifar10',
        config='mmkd_rl::knowledge_flow/convnet-stl_100e_cifar10.py',
        checkpoint='work_dirs/convnet-stl_100e_cifar10/epoch_100.pth'),
    dict(
        name='cifar100',
        config='mmkd_rl::knowledge_flow/convnet-stl_100e_cifar100.py',
        checkpoint='work_dirs/convnet-stl_100e_cifar100/epoch_100.pth'),
]
