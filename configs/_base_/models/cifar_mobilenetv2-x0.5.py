"""MobileNetV2 x0.5 for 32x32 images; Table 1 has x1.0."""
_base_ = './cifar_mobilenetv2-x1.0.py'
model = dict(backbone=dict(width_mult=0.5))
