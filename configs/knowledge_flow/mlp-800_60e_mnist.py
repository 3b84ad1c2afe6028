r"""MLP of 800 and 800 units on MNIST: the student alone.

    python tools/train.py \
    configs/knowledge_flow/mlp-800_60e_mnist.py

Paper: Knowledge Flow (ICLR 2019), Table 4, MNIST, Student alone: 1.46 % error
(98.54 % top-1).
Not yet reproduced. Expected time: some 10 min of a CPU (not measured).
Differences: the schedule is our choice.
"""
_base_ = [
    '../_base_/models/mlp.py',
    '../_base_/datasets/torchvision_mnist.py',
    '../_base_/schedules/mlp.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(hidden=(800, 800)))
