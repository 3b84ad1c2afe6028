r"""KD on ImageNet: ResNet-18 from ResNet-50.

    bash tools/dist_train.sh \
    configs/knowledge_flow/table4/kd_resnet18_100e_imagenet.py 8

Paper: Knowledge Flow (ICLR 2019), Table 4, Imagenet, KD: 30.04 % error (69.96
% top-1). Its student alone, 30.24 %, is
configs/imagenet/baseline/resnet18_100e_imagenet.py.
Before: checkpoints/resnet50.pth, see
configs/imagenet/teachers/resnet50_imagenet.py.
Not yet reproduced. Expected time: not measured.
Differences: schedule, temperature and weights are our choice.
"""
_base_ = [
    '../../imagenet/baseline/resnet18_100e_imagenet.py',
    '../../_base_/pools/knowledge_flow_table4.py',
    '../../_base_/strategies/aver_kd.py',
]
model = dict(
    _delete_=True,
    type='mmkd_rl.MultiTeacherDistiller',
    student={{_base_.model}},
    teachers=[{{_base_.teacher_imagenet}}],
    logit_loss=dict(
        type='mmkd_rl.KDLoss', temperature=4.0, loss_weight=1.0),
    feature_loss={{_base_.feature_loss}},
    weighting={{_base_.weighting}},
    probe_size=64)
