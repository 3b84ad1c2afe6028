r"""AMTML-KD: ResNet-34 from four teachers, by latent factors.

    bash tools/dist_train.sh \
    configs/imagenet/amtml_kd/amtml-kd_resnet34_100e_imagenet.py 8

Paper: MTKD-RL (AAAI 2025), Table 2, AMTML-KD: 75.68 % top-1, one run.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: alpha, beta and T are MTKD-RL's, the same for all methods.
"""
_base_ = [
    '../baseline/resnet34_100e_imagenet.py',
    '../../_base_/pools/imagenet_table2.py',
    '../../_base_/strategies/amtml_kd.py',
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
