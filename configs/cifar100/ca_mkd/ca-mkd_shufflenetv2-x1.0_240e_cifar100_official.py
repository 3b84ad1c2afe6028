r"""CA-MKD: ShuffleNetV2 by confidence, as in the published code.

    python tools/train.py \
    configs/cifar100/ca_mkd/ca-mkd_shufflenetv2-x1.0_240e_cifar100_official.py

Paper: MTKD-RL (AAAI 2025), Table 1, CA-MKD: 78.09 +- 0.17 % top-1.
Not yet reproduced. Expected time: about 3.6 h on one RTX 4090, by the paper's
54 s an epoch (Table 6c); not measured.
The feature loss also trains the feature weights, as in the code, not the
paper, of CA-MKD.
Differences: the published code's milestones (150, 180, 210) and Nesterov
momentum; the appendix prints 100 and 150; alpha, beta and T are MTKD-RL's,
the same for all methods.
"""
_base_ = [
    '../baseline/shufflenetv2-x1.0_240e_cifar100.py',
    '../../_base_/pools/cifar100_table1.py',
    '../../_base_/strategies/ca_mkd_official.py',
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
