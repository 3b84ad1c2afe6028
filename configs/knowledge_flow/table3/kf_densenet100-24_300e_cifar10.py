r"""Knowledge Flow: DenseNet-100-24 on CIFAR-10, two teachers.

    python tools/train.py \
    configs/knowledge_flow/table3/kf_densenet100-24_300e_cifar10.py

Paper: Knowledge Flow (ICLR 2019), Table 3 (a), Ours (C100, SVHN): 3.88 % error
(96.12 % top-1), mean of three runs.
Before: the teachers, densenet100-24_300e_cifar100.py and
densenet100-24_40e_svhn.py.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper does not print lambda_1 and lambda_2 of its supervised
runs (it chooses them on a validation set; 0.1 and 0.05 are ours, of its values
for games), nor which layers it links ('auto' pairs them by depth), nor when
the student is cut off.
"""
_base_ = [
    './densenet100-24_300e_cifar10.py',
    '../../_base_/pools/knowledge_flow_table3.py',
    '../../_base_/strategies/knowledge_flow_paper.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers=[{{_base_.teacher_cifar100}}, {{_base_.teacher_svhn}}]))
