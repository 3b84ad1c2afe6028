"""The schedule of MTKD-RL's appendix for CIFAR-100: 240 epochs of SGD.

Learning rate 0.05 at batch 64, momentum 0.9, weight decay 1e-4, divided by 10
at epochs 100 and 150 ("multiplied by 10", says the paper). The published code
has another one, ``cifar100_240e.py``.
"""
_base_ = './cifar100_240e.py'
optim_wrapper = dict(optimizer=dict(nesterov=False))
param_scheduler = dict(milestones=[100, 150])
