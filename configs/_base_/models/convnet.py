"""What the convolutional classifiers share: pooling and one linear layer.

A network's file adds its backbone and the head's two sizes.
"""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)))
