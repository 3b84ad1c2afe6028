"""Fully connected network of two hidden layers for MNIST and its kin.

A leaf sets ``model.backbone.hidden``; its last number is the head's
``in_channels``.
"""
_base_ = './convnet.py'
model = dict(
    backbone=dict(type='mmkd_rl.MLP', in_shape=(1, 28, 28), hidden=(800, 800)),
    neck=None,
    head=dict(num_classes=10, in_channels=800))
