r"""Chen's CIFAR network on CIFAR-100: the teacher.

    python tools/train.py \
    configs/knowledge_flow/convnet-128_150e_cifar100.py

Paper: Knowledge Flow (ICLR 2019), Table 4, C100; the error of its teacher is
not printed.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: Chen's network as it is in his collection (2017); schedule and
augmentation are our choice.
"""
_base_ = [
    '../_base_/models/chen_cifar.py',
    '../_base_/datasets/torchvision_cifar100.py',
    '../_base_/schedules/convnet.py',
    '../_base_/default_runtime.py',
]
