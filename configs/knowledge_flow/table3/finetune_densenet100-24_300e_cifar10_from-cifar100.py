r"""DenseNet-100-24 on CIFAR-10, fine-tuned from CIFAR-100.

    python tools/train.py \
    configs/knowledge_flow/table3/finetune_densenet100-24_300e_cifar10_from-cifar100.py

Paper: Knowledge Flow (ICLR 2019), Table 3 (a), Fine-tune from C100: 4.27 %
error (95.73 % top-1), mean of three runs.
Before: densenet100-24_300e_cifar100.py.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper prints no schedule for fine-tuning; this is the one of
training from scratch.
"""
_base_ = [
    './densenet100-24_300e_cifar10.py',
    '../../_base_/pools/knowledge_flow_table3.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint={{_base_.teacher_cifar100.checkpoint}},
            prefix='backbone.')))
