r"""MLP of 800 and 800 units on MNIST without digit 3: the student alone.

    python tools/train.py \
    configs/knowledge_flow/mlp-800_60e_mnist-no3.py

Paper: Knowledge Flow (ICLR 2019), Table 4, MNIST w/o digit '3', Student alone:
11.06 % error (88.94 % top-1).
Not yet reproduced. Expected time: some 10 min of a CPU (not measured).
Differences: the schedule is our choice. Tested on all digits.
"""
_base_ = [
    '../_base_/models/mlp.py',
    '../_base_/datasets/torchvision_mnist.py',
    '../_base_/schedules/mlp.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(hidden=(800, 800)))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_rl.ClassSubset',
        dataset={{_base_.train_dataloader.dataset}},
        without=[3],
        relabel=False))
