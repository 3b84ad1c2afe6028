r"""Knowledge Flow: MLP 256 on EMNIST's letters, from its letters.

    python tools/train.py \
    configs/knowledge_flow/table5/kf_mlp-256_40e_emnist-letters_from-letters.py

Paper: Knowledge Flow (ICLR 2019), Table 5, Ours (EMNIST letters): 7.13 % error
(92.87 % top-1).
Before: mlp-256_40e_emnist-letters.py.
Not yet reproduced. Expected time: some 10 min of a CPU (not measured).
Differences: the paper does not print lambda_1 and lambda_2 of its supervised
runs (it chooses them on a validation set; 0.1 and 0.05 are ours, of its values
for games), nor which layers it links ('auto' pairs them by depth), nor when
the student is cut off.
"""
_base_ = [
    './mlp-256_40e_emnist-letters.py',
    '../../_base_/pools/knowledge_flow_table5.py',
    '../../_base_/strategies/knowledge_flow_paper.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers=[{{_base_.teacher_letters}}]))
