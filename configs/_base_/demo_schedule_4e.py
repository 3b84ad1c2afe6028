"""Schedule of the demo: AdamW, warm-up and cosine over 4 epochs."""

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=5e-4))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.04,
        begin=0,
        end=1,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=1,
        end=4,
        T_max=3,
        convert_to_iter_based=True)
]
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
val_cfg = dict()
test_cfg = dict()
