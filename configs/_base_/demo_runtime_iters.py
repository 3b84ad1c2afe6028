"""As demo_runtime.py, for schedules that count iterations."""

_base_ = ['demo_runtime.py']

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=250))
log_processor = dict(by_epoch=False)
