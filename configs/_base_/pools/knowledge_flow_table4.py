"""The teachers of Knowledge Flow's Table 4, larger nets of the same task."""
teachers = [
    dict(
        name='mlp-1200',
        config='mmkd_rl::knowledge_flow/mlp-1200_60e_mnist.py',
        checkpoint='work_dirs/mlp-1200_60e_mnist/epoch_60.pth'),
    dict(
        name='convnet-128',
        config='mmkd_rl::knowledge_flow/convnet-128_150e_cifar100.py',
        checkpoint='work_dirs/convnet-128_150e_cifar100/epoch_150.pth'),
    dict(
        name='resnet50',
        config='mmkd_rl::imagenet/teachers/resnet50_imagenet.py',
        checkpoint='checkpoints/resnet50.pth'),
]
