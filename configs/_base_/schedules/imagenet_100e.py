"""MTKD-RL's schedule for CNNs on ImageNet: 100 epochs of SGD, three steps.

Learning rate 0.1 at batch 256, momentum 0.9, weight decay 1e-4, divided by 10
at epochs 30, 60 and 90 ("multiplied by 10", says the paper's appendix).
"""
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
