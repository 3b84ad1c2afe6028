"""Optimiser of the small transfers, and the package of their backbone.

A leaf has its own length and schedule of the learning rate.
"""
custom_imports = dict(imports=['mmkd_rl'], allow_failed_imports=False)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
