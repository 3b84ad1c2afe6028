r"""ResNet-14 that tells by what quarter an image is turned: a teacher.

    python tools/train.py \
    configs/knowledge_flow/resnet14_5e_first-half_rotations.py

Not an experiment of the paper: its Sec. 4.2 in minutes on a CPU, see
docs/results/knowledge_flow.md.
Run, see there. Expected time: 2 to 3 min of one CPU core.
Differences: task, networks and schedule are our choice. The same images as of
resnet14_5e_first-half.py, another task.
"""
_base_ = './resnet14_5e_first-half.py'
model = dict(head=dict(num_classes=4))
data_preprocessor = dict(num_classes=4)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmkd_rl.RotateTask'),
    dict(type='mmpretrain.PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmkd_rl.RotateTask', draw=False),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(dataset=dict(pipeline=test_pipeline)))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator
