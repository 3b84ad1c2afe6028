r"""MTKD-RL: MobileNetV2 from four teachers, weighed by an agent.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_mobilenetv2-x1.0_240e_cifar100.py

Paper: MTKD-RL (AAAI 2025), Table 1, MTKD-RL: 74.63 +- 0.35 % top-1.
Not yet reproduced. Expected time: about 3.1 h on one RTX 4090, by the paper's
47 s an epoch for ShuffleNetV2 (Table 6c); not measured.
Differences: the published code's milestones (150, 180, 210) and Nesterov
momentum; the appendix prints 100 and 150; reward, updater, learnable balances
and standardised states are our defaults, see docs/mtkd_rl.md.
"""
_base_ = [
    '../baseline/mobilenetv2-x1.0_240e_cifar100.py',
    '../../_base_/pools/cifar100_table1.py',
    '../../_base_/strategies/mtkd_rl.py',
]
model = dict(
    _delete_=True,
    type='MultiTeacherDistiller',
    student={{_base_.model}},
    teachers={{_base_.teachers}},
    logit_loss={{_base_.logit_loss}},
    feature_loss={{_base_.feature_loss}},
    weighting={{_base_.weighting}},
    probe_size=32)
