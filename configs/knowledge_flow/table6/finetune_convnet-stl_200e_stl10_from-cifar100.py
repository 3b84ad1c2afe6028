r"""Chen's network on STL-10, fine-tuned from CIFAR-100.

    python tools/train.py \
    configs/knowledge_flow/table6/finetune_convnet-stl_200e_stl10_from-cifar100.py

Paper: Knowledge Flow (ICLR 2019), Table 6, Fine-tune from C100: 14.38 % error
(85.62 % top-1).
Before: convnet-stl_100e_cifar100.py.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the network is Chen's for STL-10 (2017); the schedule is our
choice.
"""
_base_ = [
    './convnet-stl_200e_stl10.py',
    '../../_base_/pools/knowledge_flow_table6.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint={{_base_.teacher_cifar100.checkpoint}},
            prefix='backbone.')))
