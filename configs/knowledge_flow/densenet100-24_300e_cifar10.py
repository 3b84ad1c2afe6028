r"""DenseNet-100-24 on CIFAR-10, 300 epochs: alone, and a teacher.

    python tools/train.py \
    configs/knowledge_flow/densenet100-24_300e_cifar10.py

Paper: Knowledge Flow (ICLR 2019), Table 3, Baseline Densenet: 4.44 % error
(95.56 % top-1), mean of three runs.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper does not say whether its DenseNet has bottlenecks; this
one has none (27.2 million weights), and Huang et al. (CVPR 2017) print lower
errors for it than the paper does, 3.74 % on CIFAR-10 and 19.25 % on CIFAR-100.
"""
_base_ = [
    '../_base_/models/densenet100-24.py',
    '../_base_/datasets/torchvision_cifar10.py',
    '../_base_/schedules/densenet.py',
    '../_base_/default_runtime.py',
]
