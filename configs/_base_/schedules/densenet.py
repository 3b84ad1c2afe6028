"""DenseNet's schedule for CIFAR (Huang et al., CVPR 2017): 300 epochs.

SGD, 0.1 at batch 64, Nesterov momentum 0.9, weight decay 1e-4, divided by 10
at epochs 150 and 225. For SVHN they have 40, divided at 20 and 30.
"""
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4))
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[150, 225], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
