"""CA-MKD: teachers right about the label weigh more (Zhang et al. 2022)."""
_base_ = './kd_fitnet.py'
weighting = dict(type='CAMKD')
