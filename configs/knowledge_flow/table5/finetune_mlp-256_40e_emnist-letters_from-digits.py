r"""MLP 256 on EMNIST's letters, fine-tuned from the digits.

    python tools/train.py \
    configs/knowledge_flow/table5/finetune_mlp-256_40e_emnist-letters_from-digits.py

Paper: Knowledge Flow (ICLR 2019), Table 5, Fine-tune from EMNIST digits: 9.04
% error (90.96 % top-1).
Before: mlp-256_40e_emnist-digits.py.
Not yet reproduced. Expected time: some 10 min of a CPU (not measured).
Differences: the network is Chen's for MNIST (2017); the schedule is our
choice.
"""
_base_ = [
    './mlp-256_40e_emnist-letters.py',
    '../../_base_/pools/knowledge_flow_table5.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint={{_base_.teacher_digits.checkpoint}},
            prefix='backbone.')))
