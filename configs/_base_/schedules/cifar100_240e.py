"""The published code's schedule for CIFAR-100: 240 epochs, SGD, three steps.

Learning rate 0.05 at batch 64, Nesterov momentum 0.9, weight decay 1e-4,
divided by 10 at epochs 150, 180 and 210. That of the paper's appendix is
``cifar100_240e_paper.py``.
"""
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4))
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[150, 180, 210], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=240, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
