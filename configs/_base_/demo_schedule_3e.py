"""Schedule of the demo's students: AdamW, warm-up and cosine over 3 epochs.

Shorter than the teachers': a student that has time enough needs no teacher.
"""

_base_ = ['demo_schedule_4e.py']

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
        end=3,
        T_max=2,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=3, val_interval=3)
