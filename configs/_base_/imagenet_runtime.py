"""As ``default_runtime.py``, with names looked up in MMPretrain first."""
_base_ = './default_runtime.py'
default_scope = 'mmpretrain'
