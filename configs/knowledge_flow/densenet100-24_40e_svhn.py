r"""DenseNet-100-24 on SVHN, 40 epochs: a teacher of Table 3.

    python tools/train.py \
    configs/knowledge_flow/densenet100-24_40e_svhn.py

Paper: Knowledge Flow (ICLR 2019), Table 3, the SVHN expert; its error is not
printed.
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the paper refers to Huang et al. (CVPR 2017) for the schedule: all
604,388 training images, no augmentation, 40 epochs, steps at 20 and 30. Their
dropout of 0.2 is left out: the network must be the student's, to begin from.
"""
_base_ = [
    '../_base_/models/densenet100-24.py',
    '../_base_/datasets/torchvision_svhn.py',
    '../_base_/schedules/densenet.py',
    '../_base_/default_runtime.py',
]
param_scheduler = dict(milestones=[20, 30])
train_cfg = dict(max_epochs=40)
