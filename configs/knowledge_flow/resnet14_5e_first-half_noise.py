r"""ResNet-14 whose labels are drawn by lot: a poor teacher.

    python tools/train.py \
    configs/knowledge_flow/resnet14_5e_first-half_noise.py

Not an experiment of the paper: its Sec. 4.2 in minutes on a CPU, see
docs/results/knowledge_flow.md.
Run, see there. Expected time: 2 to 3 min of one CPU core.
Differences: task, networks and schedule are our choice. Each image has one
wrong label for good. Permuted classes would not do: only features flow, and
these would be as good as ever.
"""
_base_ = './resnet14_5e_first-half.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmkd_rl.RandomLabels', num_classes=50),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
