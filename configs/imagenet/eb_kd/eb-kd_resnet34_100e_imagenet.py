r"""EB-KD: ResNet-34 from four teachers, weighed by entropy.

    bash tools/dist_train.sh \
    configs/imagenet/eb_kd/eb-kd_resnet34_100e_imagenet.py 8

Paper: not in MTKD-RL (AAAI 2025); the method is that of Kwon et al. (ICASSP
2020).
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: alpha, beta and T are MTKD-RL's, the same for all methods.
"""
_base_ = [
    '../baseline/resnet34_100e_imagenet.py',
    '../../_base_/pools/imagenet_table2.py',
    '../../_base_/strategies/eb_kd.py',
]
model = dict(
    _delete_=True,
    type='mmkd_rl.MultiTeacherDistiller',
    student={{_base_.model}},
    teachers={{_base_.teachers}},
    logit_loss={{_base_.logit_loss}},
    feature_loss={{_base_.feature_loss}},
    weighting={{_base_.weighting}},
    probe_size=64)
