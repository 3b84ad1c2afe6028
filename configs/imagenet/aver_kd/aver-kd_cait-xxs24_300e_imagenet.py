r"""AVER (KD): CaiT-XXS24 from three teachers, equal weights, logits.

    bash tools/dist_train.sh \
    configs/imagenet/aver_kd/aver-kd_cait-xxs24_300e_imagenet.py 8

Paper: MTKD-RL (AAAI 2025), Table 3, AVER (KD): 78.36 % top-1, one run.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: what the paper does not print is DeiT's (repeated augmentation,
drop path 0.1), without weight averaging; weights sum to one.
"""
_base_ = [
    '../baseline/cait-xxs24_300e_imagenet.py',
    '../../_base_/pools/imagenet_table3.py',
    '../../_base_/strategies/aver_kd.py',
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
