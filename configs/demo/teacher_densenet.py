_base_ = [
    '../_base_/demo_digits.py', '../_base_/demo_schedule_4e.py',
    '../_base_/demo_runtime.py'
]

model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.DenseNet',
        arch=dict(growth_rate=16, depths=[4, 6, 8], init_channels=32)),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=200,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
train_dataloader = dict(dataset=dict(label_noise=0.5))
