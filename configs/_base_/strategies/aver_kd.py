"""AVER (KD): equal weights, logits alone (You et al. 2017)."""
_base_ = './aver.py'
feature_loss = None
