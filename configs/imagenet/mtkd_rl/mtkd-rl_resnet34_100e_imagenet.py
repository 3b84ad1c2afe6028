r"""MTKD-RL: ResNet-34 from four teachers, weighed by an agent.

    bash tools/dist_train.sh \
    configs/imagenet/mtkd_rl/mtkd-rl_resnet34_100e_imagenet.py 8

Paper: MTKD-RL (AAAI 2025), Table 2, MTKD-RL: 76.77 % top-1, one run.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: reward, updater, learnable balances and standardised states are
our defaults, see docs/mtkd_rl.md.
"""
_base_ = [
    '../baseline/resnet34_100e_imagenet.py',
    '../../_base_/pools/imagenet_table2.py',
    '../../_base_/strategies/mtkd_rl.py',
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
