r"""DenseNet-100-24 on CIFAR-100, fine-tuned from CIFAR-10.

    python tools/train.py \
    configs/knowledge_flow/table3/finetune_densenet100-24_300e_cifar100_from-cifar10.py

Paper: Knowledge Flow (ICLR 2019), Table 3 (b), Fine-tune from C10: 20.83 %
error (79.17 % top-1), mean of three runs.
Before: densenet100-24_300e_cifar10.py.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper prints no schedule for fine-tuning; this is the one of
training from scratch.
"""
_base_ = [
    './densenet100-24_300e_cifar100.py',
    '../../_base_/pools/knowledge_flow_table3.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint={{_base_.teacher_cifar10.checkpoint}},
            prefix='backbone.')))
