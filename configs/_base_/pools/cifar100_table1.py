"""The four teachers of MTKD-RL's Table 1, trained by their configs here.

Another place for one of them: ``--cfg-options
model.teachers.0.checkpoint=FILE``.
"""
teachers = [
    dict(
        name='regnety-400mf',
        config='mmkd_rl::cifar100/teachers/'
        'regnety-400mf_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/regnety-400mf_1xb64-240e_cifar100/'
        'epoch_240.pth'),
    dict(
        name='regnetx-400mf',
        config='mmkd_rl::cifar100/teachers/'
        'regnetx-400mf_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/regnetx-400mf_1xb64-240e_cifar100/'
        'epoch_240.pth'),
    dict(
        name='resnet32x4',
        config='mmkd_rl::cifar100/teachers/resnet32x4_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/resnet32x4_1xb64-240e_cifar100/epoch_240.pth'),
    dict(
        name='wrn28-4',
        config='mmkd_rl::cifar100/teachers/wrn28-4_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/wrn28-4_1xb64-240e_cifar100/epoch_240.pth'),
]
