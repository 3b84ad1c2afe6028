r"""Knowledge Flow on CIFAR-10, teachers of another architecture.

    python tools/train.py \
    configs/knowledge_flow/ablations/kf_densenet100-24_300e_cifar10_other-teachers.py

Paper: Knowledge Flow (ICLR 2019), Sec. 7.5, Fig. 10; no number for a
supervised task.
Before: wrn28-4_300e_cifar100.py and wrn28-4_40e_svhn.py.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper's ablation is of reinforcement learning (its number is a
game's reward); this is the same change on Table 3 (a)'s task; WRN-28-4 is our
choice.
"""
_base_ = [
    '../table3/kf_densenet100-24_300e_cifar10.py',
    '../../_base_/pools/knowledge_flow_other.py',
]
model = dict(
    backbone=dict(teachers=[{{_base_.other_cifar100}}, {{_base_.other_svhn}}]))
