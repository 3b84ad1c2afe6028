r"""MTKD-RL with ND in place of FitNet: ResNet-18 from four teachers.

    bash tools/dist_train.sh \
    configs/imagenet/mtkd_rl/mtkd-rl_resnet18_100e_imagenet_nd.py 8

Paper: MTKD-RL (AAAI 2025), Table 7, +ND: 73.61 % top-1.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: those of mtkd-rl_resnet18_100e_imagenet.py; ND's weight is its
authors' (2), the paper prints none. Class means are of augmented images, one
pass of the teachers before training.
"""
_base_ = './mtkd-rl_resnet18_100e_imagenet.py'
model = dict(feature_loss=dict(_delete_=True, type='mmkd_rl.NDLoss'))
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(type='mmkd_rl.ClassMeanHook'),
    dict(
        type='mmkd_rl.AgentAlternationHook',
        warmup=1,
        interval=1,
        by_epoch=True),
    dict(type='mmkd_rl.WeightVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
