r"""Chen's CIFAR network with half the channels: the student alone.

    python tools/train.py \
    configs/knowledge_flow/convnet-64_150e_cifar100.py

Paper: Knowledge Flow (ICLR 2019), Table 4, C100, Student alone: 31.87 % error
(68.13 % top-1).
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: Chen's network as it is in his collection (2017); schedule and
augmentation are our choice.
"""
_base_ = './convnet-128_150e_cifar100.py'
model = dict(backbone=dict(width=64), head=dict(in_channels=512))
