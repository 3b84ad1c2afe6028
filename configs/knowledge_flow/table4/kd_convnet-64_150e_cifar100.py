r"""KD on CIFAR-100: half of Chen's network from the whole.

    python tools/train.py \
    configs/knowledge_flow/table4/kd_convnet-64_150e_cifar100.py

Paper: Knowledge Flow (ICLR 2019), Table 4, C100, KD: 30.28 % error (69.72 %
top-1).
Before: convnet-128_150e_cifar100.py.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: Chen's network as it is in his collection (2017); schedule and
augmentation are our choice; so are temperature 4 and the weights 1 of both
losses.
"""
_base_ = [
    './convnet-64_150e_cifar100.py',
    '../../_base_/pools/knowledge_flow_table4.py',
    '../../_base_/strategies/aver_kd.py',
]
model = dict(
    _delete_=True,
    type='mmkd_rl.MultiTeacherDistiller',
    student={{_base_.model}},
    teachers=[{{_base_.teacher_cifar100}}],
    logit_loss=dict(
        type='mmkd_rl.KDLoss', temperature=4.0, loss_weight=1.0),
    feature_loss={{_base_.feature_loss}},
    weighting={{_base_.weighting}},
    probe_size=32)
