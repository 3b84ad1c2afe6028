r"""MLP of 800 and 800 units on the digits, trained without 3.

    python tools/train.py \
    configs/knowledge_flow/mlp-800_12e_digits-no3.py

Not an experiment of the paper: Table 4 (MNIST) on the embedded digits, see
docs/results/knowledge_flow.md.
Run, see there. Expected time: 1 to 2 min of one CPU core.
Differences: digits are rendered in clutter; the schedule is our choice.
"""
_base_ = './mlp-800_12e_digits.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_rl.ClassSubset',
        dataset={{_base_.train_dataloader.dataset}},
        without=[3],
        relabel=False))
