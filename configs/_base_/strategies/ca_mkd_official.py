"""CA-MKD with the published code's choice: the feature loss also trains the
feature weights.
"""
_base_ = './ca_mkd.py'
weighting = dict(detach_feature=False)
