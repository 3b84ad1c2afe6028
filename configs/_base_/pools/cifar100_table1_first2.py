"""Two teachers of Table 1's four, the first of the list: for Fig. 2.

The paper does not say which 2 it took.
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
]
