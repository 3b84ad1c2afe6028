r"""AVER (KD + FitNet): ResNet-56 from ResNet-32x4 and WRN-28-4.

    python tools/train.py \
    configs/cifar100/aver/aver_resnet56_240e_cifar100.py

Paper: MTKD-RL (AAAI 2025), Table 1, AVER (KD+FitNet): 73.93 +- 0.16 % top-1.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: two of the paper's four teachers; the RegNets are missing.
"""
_base_ = '../baseline/resnet56_1xb64-240e_cifar100.py'
teachers = [
    dict(
        name='resnet32x4',
        config='mmkd_rl::cifar100/teachers/resnet32x4_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/resnet32x4_1xb64-240e_cifar100/epoch_240.pth'),
    dict(
        name='wrn28-4',
        config='mmkd_rl::cifar100/teachers/wrn28-4_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/wrn28-4_1xb64-240e_cifar100/epoch_240.pth'),
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
