"""AE-KD: weights from gradients at the logits (Du et al. 2020)."""
_base_ = './kd_fitnet.py'
weighting = dict(type='AEKD')
