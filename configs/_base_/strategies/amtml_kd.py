"""AMTML-KD: latent factors of the teachers (Liu et al. 2020)."""
_base_ = './kd_fitnet.py'
weighting = dict(type='AMTMLKD')
