r"""CaiT-XXS24 on ImageNet, 300 epochs: a student of Table 3, alone.

    bash tools/dist_train.sh \
    configs/imagenet/baseline/cait-xxs24_300e_imagenet.py 8

Paper: MTKD-RL (AAAI 2025), Table 3, Baseline: 77.32 % top-1, one run.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: what the paper does not print is DeiT's (repeated augmentation,
drop path 0.1), without weight averaging.
"""
_base_ = [
    '../../_base_/datasets/imagenet_deit.py',
    '../../_base_/schedules/imagenet_300e_deit.py',
    '../../_base_/imagenet_runtime.py',
]
model = dict(
    type='mmkd_rl.TimmClassifier',
    model_name='cait_xxs24_224',
    num_classes=1000,
    drop_path_rate=0.1,
    loss=dict(
        type='mmpretrain.LabelSmoothLoss',
        label_smooth_val=0.1,
        mode='original'))
