r"""KD on the digits without 3: MLP 800 from MLP 1200.

    python tools/train.py \
    configs/knowledge_flow/digits/kd_mlp-800_12e_digits-no3.py

Not an experiment of the paper: Table 4 (MNIST) on the embedded digits, see
docs/results/knowledge_flow.md.
Before: mlp-1200_12e_digits.py.
Run, see there. Expected time: 1 to 2 min of one CPU core.
Differences: digits are rendered in clutter; the schedule is our choice.
"""
_base_ = [
    './mlp-800_12e_digits-no3.py',
    '../../_base_/pools/knowledge_flow_digits.py',
    '../../_base_/strategies/aver_kd.py',
]
model = dict(
    _delete_=True,
    type='mmkd_rl.MultiTeacherDistiller',
    student={{_base_.model}},
    teachers=[{{_base_.teacher_digits}}],
    logit_loss=dict(
        type='mmkd_rl.KDLoss', temperature=4.0, loss_weight=1.0),
    feature_loss={{_base_.feature_loss}},
    weighting={{_base_.weighting}},
    probe_size=32)
