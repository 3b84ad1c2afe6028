r"""AVER (KD + FitNet): ResNet-8 from three teachers with equal weights.

    python tools/train.py \
    configs/cifar100/aver/aver_resnet8_6e_cifar100-fifth.py

A run of minutes on a CPU, see docs/results/cifar100.md. Train the three
teachers first (configs/cifar100/teachers/*_1xb128-*.py).
Paper: the method is AVER (KD+FitNet) of MTKD-RL (AAAI 2025), Table 1.
Expected: 26.39 % top-1 (mean of three seeds), 3.5 min of one CPU core.
Differences: student, teachers, a fifth of the images and 6 epochs are our own
choice; weights sum to one.
"""
_base_ = '../baseline/resnet8_1xb64-6e_cifar100-fifth.py'
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
model = dict(
    _delete_=True,
    type='MultiTeacherDistiller',
    student={{_base_.model}},
    teachers=teachers,
    probe_size=32,
    logit_loss=dict(type='KDLoss', temperature=4.0, loss_weight=1.0),
    feature_loss=dict(type='FitNetLoss', loss_weight=5.0),
    weighting=dict(type='AverageWeighting'))
custom_hooks = [dict(type='TeacherCheckHook'), dict(type='StudentExportHook')]
