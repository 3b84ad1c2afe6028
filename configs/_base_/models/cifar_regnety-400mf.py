"""RegNetY-400MF for 32x32 images."""
_base_ = './cifar_regnetx-400mf.py'
model = dict(backbone=dict(arch='regnety_400mf'))
