r"""MTKD-RL with DIST in place of KD: ResNet-18 from four teachers.

    bash tools/dist_train.sh \
    configs/imagenet/mtkd_rl/mtkd-rl_resnet18_100e_imagenet_dist.py 8

Paper: MTKD-RL (AAAI 2025), Table 7, +DIST: 73.29 % top-1.
Not yet reproduced. Expected time: not measured; the paper, on 8 A800, gives
none.
Differences: those of mtkd-rl_resnet18_100e_imagenet.py; DIST's settings are
its authors' for ImageNet (beta = gamma = 2, T = 1), the paper prints none.
"""
_base_ = './mtkd-rl_resnet18_100e_imagenet.py'
model = dict(logit_loss=dict(_delete_=True, type='mmkd_rl.DISTLoss'))
