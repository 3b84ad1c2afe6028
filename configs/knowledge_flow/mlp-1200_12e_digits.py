r"""MLP of 1200 and 1200 units on the digits: the teacher.

    python tools/train.py \
    configs/knowledge_flow/mlp-1200_12e_digits.py

Not an experiment of the paper: Table 4 (MNIST) on the embedded digits, see
docs/results/knowledge_flow.md.
Run, see there. Expected time: 1 to 2 min of one CPU core.
Differences: digits are rendered in clutter; the schedule is our choice.
"""
_base_ = [
    '../_base_/models/mlp.py',
    '../_base_/demo_digits.py',
    '../_base_/schedules/digits_12e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(in_shape=(3, 32, 32), hidden=(1200, 1200), dropout=0.2),
    head=dict(in_channels=1200))
