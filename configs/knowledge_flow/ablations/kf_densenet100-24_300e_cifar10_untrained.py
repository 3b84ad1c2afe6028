r"""Knowledge Flow on CIFAR-10 from two untrained teachers.

    python tools/train.py \
    configs/knowledge_flow/ablations/kf_densenet100-24_300e_cifar10_untrained.py

Paper: Knowledge Flow (ICLR 2019), Sec. 7.4.1, Fig. 8; no number for a
supervised task.
Before: nothing.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper's ablation is of reinforcement learning (its number is a
game's reward); this is the same change on Table 3 (a)'s task.
"""
_base_ = '../table3/kf_densenet100-24_300e_cifar10.py'
model = dict(
    backbone=dict(teachers=[
        dict(
            name='cifar100',
            config={{_base_.teacher_cifar100.config}},
            checkpoint='untrained'),
        dict(
            name='svhn',
            config={{_base_.teacher_svhn.config}},
            checkpoint='untrained'),
    ]))
