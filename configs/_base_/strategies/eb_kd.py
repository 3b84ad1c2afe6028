"""EB-KD: teachers sure of themselves weigh more (Kwon et al. 2020)."""
_base_ = './kd_fitnet.py'
weighting = dict(type='EBKD')
