"""Minutes on a CPU core: warm-up over 50 iterations, then a cosine to zero.

In bfloat16; the learning rate is for batch 128. A leaf says
``train_cfg.max_epochs``; the cosine ends with it.
"""
optim_wrapper = dict(
    type='BFloat16OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        by_epoch=True,
        begin=0,
        convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
