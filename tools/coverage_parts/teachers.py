"""Two small teachers without trained weights, for a config's classes.

They have the student's task, and architectures of two kinds.
"""

from __future__ import annotations

from mmengine.config import Config

from mmkd_rl.recipes.tasks import share_scores

_MEAN, _STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
_WIDTHS = (64, 128, 256, 512)


def teachers_for(cfg: Config, classes: int, channels: int) -> list[dict]:
    """Teachers in the form of :func:`mmkd_rl.distill`.

    Args:
        cfg: Config of the student.
        classes: Number of classes.
        channels: Channels of an image.
    """
    scope = cfg.default_scope
    if scope == 'mmdet' and share_scores(cfg.model, scope, []):
        # Scores are compared only where the heads are alike.
        return [dict(name=name, checkpoint='untrained', config=dict(
            default_scope=scope, model=cfg.model)) for name in 'ab']
    make = dict(mmseg=_segmentors, mmpretrain=_classifiers, mmdet=_detectors)
    models = make[scope](classes, channels)
    preprocessor = _preprocessor(cfg, channels, scope)
    return [
        dict(name=name, checkpoint='untrained',
             config=dict(default_scope=scope,
                         model=dict(model, data_preprocessor=preprocessor)))
        for name, model in models.items()
    ]


def _preprocessor(cfg: Config, channels: int, scope: str) -> dict:
    """ImageNet's normalisation; the student's for images that are not RGB."""
    kind = dict(mmseg='SegDataPreProcessor', mmdet='DetDataPreprocessor',
                mmpretrain='ClsDataPreprocessor')[scope]
    swap = 'to_rgb' if scope == 'mmpretrain' else 'bgr_to_rgb'
    if channels == 3:
        return {'type': kind, 'mean': _MEAN, 'std': _STD, swap: True}
    given = student_preprocessor(cfg)
    return {'type': kind, **{key: given[key] for key in ('mean', 'std', swap)
                             if given.get(key) is not None}}


def student_preprocessor(cfg: Config) -> dict:
    """The data preprocessor of a config, as MMEngine's runner chooses it."""
    return cfg.model.get('data_preprocessor') or \
        cfg.get('data_preprocessor') or {}


def _classifiers(classes: int, channels: int) -> dict[str, dict]:
    resnet = dict(type='ResNet', depth=18, in_channels=channels)
    convnext = dict(type='ConvNeXt', arch='atto', in_channels=channels,
                    gap_before_final_norm=False)
    return {
        name: dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=classes,
                      in_channels=width, loss=dict(type='CrossEntropyLoss')))
        for name, backbone, width in (('resnet18', resnet, 512),
                                      ('convnext', convnext, 320))
    }


def _segmentors(classes: int, channels: int) -> dict[str, dict]:
    norm = dict(type='BN', requires_grad=True)
    common = dict(dropout_ratio=.1, num_classes=classes, norm_cfg=norm,
                  align_corners=False,
                  loss_decode=dict(type='CrossEntropyLoss'))

    def segmentor(head: dict, strides: tuple, dilations: tuple) -> dict:
        return dict(
            type='EncoderDecoder',
            backbone=dict(
                type='ResNetV1c', depth=18, in_channels=channels,
                num_stages=4, out_indices=(0, 1, 2, 3), strides=strides,
                dilations=dilations, norm_cfg=norm, norm_eval=False,
                style='pytorch', contract_dilation=True),
            decode_head=head, train_cfg=dict(), test_cfg=dict(mode='whole'))

    return dict(
        pspnet=segmentor(
            dict(type='PSPHead', in_channels=512, in_index=3, channels=64,
                 pool_scales=(1, 2, 3, 6), **common),
            (1, 2, 1, 1), (1, 1, 2, 4)),
        upernet=segmentor(
            dict(type='UPerHead', in_channels=list(_WIDTHS),
                 in_index=[0, 1, 2, 3], channels=64, pool_scales=(1, 2, 3, 6),
                 **common),
            (1, 2, 2, 2), (1, 1, 1, 1)))


def _detectors(classes: int, channels: int) -> dict[str, dict]:
    backbone = dict(
        type='ResNet', depth=18, in_channels=channels, num_stages=4,
        out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN'), norm_eval=True,
        style='pytorch')
    neck = dict(type='FPN', in_channels=list(_WIDTHS), out_channels=64,
                start_level=1, num_outs=5)
    head = dict(num_classes=classes, in_channels=64, feat_channels=64,
                stacked_convs=1)
    strides = [8, 16, 32, 64, 128]
    focal = dict(type='FocalLoss', use_sigmoid=True)
    retina = dict(
        type='RetinaHead', **head,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
            ratios=[.5, 1., 2.], strides=strides),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=focal, loss_bbox=dict(type='L1Loss'))
    fcos = dict(type='FCOSHead', **head, strides=strides, loss_cls=focal,
                norm_cfg=dict(type='BN'))
    return {
        name: dict(type=kind, backbone=backbone,
                   neck=dict(neck, add_extra_convs=extra), bbox_head=own,
                   test_cfg=dict())
        for name, kind, extra, own in (
            ('retinanet', 'RetinaNet', 'on_input', retina),
            ('fcos', 'FCOS', 'on_output', fcos))}
