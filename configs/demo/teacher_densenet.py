"""The poor teacher of the demo: a small DenseNet that was told lies.

Half of the training scans carry a wrong label, the same in all renderings of
a scan, drawn once with the data set's seed.

Command: python tools/train.py configs/demo/teacher_densenet.py \\
             --work-dir work_dirs/demo/teacher_densenet
Result:  69.9 % accuracy (seed 0).
Time:    72 s on one of two cores, the other busy as well.
"""

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
