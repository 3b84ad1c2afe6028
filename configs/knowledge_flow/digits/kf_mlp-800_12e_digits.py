r"""Knowledge Flow on the digits: MLP 800 from MLP 1200.

    python tools/train.py \
    configs/knowledge_flow/digits/kf_mlp-800_12e_digits.py

Not an experiment of the paper: Table 4 (MNIST) on the embedded digits, see
docs/results/knowledge_flow.md.
Before: mlp-1200_12e_digits.py.
Run, see there. Expected time: 1 to 2 min of one CPU core.
Differences: digits are rendered in clutter; the schedule is our choice.
"""
_base_ = [
    './mlp-800_12e_digits.py',
    '../../_base_/pools/knowledge_flow_digits.py',
    '../../_base_/strategies/knowledge_flow.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers=[{{_base_.teacher_digits}}]))
