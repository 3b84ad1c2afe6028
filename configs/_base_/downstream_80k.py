"""80,000 iterations of SGD from 0.1 to 0, the schedule of Table 5.

MMSegmentation's ``schedule_80k.py`` has a learning rate of 0.01 that ends at
0.0001. Its weight decay, 0.0005, is kept: the paper prints none.
"""
_base_ = 'mmseg::_base_/schedules/schedule_80k.py'

optimizer = dict(lr=0.1)
optim_wrapper = dict(optimizer=optimizer)
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=0.9,
        begin=0,
        end=80000,
        by_epoch=False)
]
