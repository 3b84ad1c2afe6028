r"""EB-KD: DeiT-Tiny from three teachers, weighed by entropy.

    bash tools/dist_train.sh \
    configs/imagenet/eb_kd/eb-kd_deit-tiny_300e_imagenet.py 8

Paper: not in MTKD-RL (AAAI 2025); the method is that of Kwon et al. (ICASSP
2020).
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: what the paper does not print is DeiT's (repeated augmentation,
drop path 0.1), without weight averaging; alpha, beta and T are MTKD-RL's, the
same for all methods.
"""
_base_ = [
    '../baseline/deit-tiny_300e_imagenet.py',
    '../../_base_/pools/imagenet_table3.py',
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
    probe_size=224)
