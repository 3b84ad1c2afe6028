"""Configs of the installed MMDetection and MMSegmentation with
KnowledgeFlowBackbone can be built, and train a step on noise."""

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmkd_rl.flow import flow_of
from mmkd_rl.registry import MODELS

from .parts import CIFAR, teacher

SIDE = 64
RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


def train(package, model, samples):
    """Train a step on two images, and check that every w and Q learns."""
    init_default_scope(package)
    with MODELS.switch_scope_and_registry(package) as registry:
        model = registry.build(model)
    flow = flow_of(model)
    flow.strength = 1.
    images = [torch.randint(0, 256, (3, SIDE, SIDE)) for _ in range(2)]
    data = model.data_preprocessor(
        dict(inputs=images, data_samples=samples), True)
    losses, names = model.parse_losses(
        model.train()(data['inputs'], data['data_samples'], mode='loss'))
    assert losses.isfinite() and all(v.isfinite() for v in names.values())
    losses.backward()
    for name, p in flow.named_parameters():
        assert p.grad is not None and p.grad.any(), name
    assert model.backbone.layer4[0].conv1.weight.grad.any()
    return model


def test_a_detector_learns_from_a_classifier_and_a_segmentor():
    mmdet = pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    from mmdet.structures import DetDataSample
    cfg = get_config(RETINANET).model
    cfg.bbox_head.stacked_convs = 1  # for speed
    cfg.backbone = dict(
        type='mmkd_rl.KnowledgeFlowBackbone',
        student=cfg.backbone,
        teachers=[teacher(), teacher('other', PSPNET)])
    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo=dict(
            img_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE),
            batch_input_shape=(SIDE, SIDE)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4., 8., 40., 60.]]),
            labels=torch.tensor([3]))
        samples.append(sample)
    model = train('mmdet', cfg, samples)
    assert type(model.backbone) is mmdet.models.ResNet
    flow = flow_of(model)
    assert [n.count('.') for n in flow.layers] == [1] * 4
    assert flow.candidates[-1][1:] == ('a:layer3.0', 'other:layer4.1')
    # out_indices of the neck; the config freezes the first stage.
    assert len(model.backbone(torch.zeros(1, 3, SIDE, SIDE))) == 4
    assert not model.backbone.conv1.weight.requires_grad


def test_a_segmentor_learns_from_a_detector_and_a_classifier():
    mmseg = pytest.importorskip('mmseg')
    pytest.importorskip('mmdet')
    from mmseg.structures import SegDataSample
    cfg = get_config(PSPNET).model
    cfg.pretrained = None
    norm = dict(type='BN', requires_grad=True)  # one process
    cfg.backbone.norm_cfg = cfg.decode_head.norm_cfg = \
        cfg.auxiliary_head.norm_cfg = norm
    cfg.data_preprocessor.size = (SIDE, SIDE)
    cfg.backbone = dict(
        type='mmkd_rl.KnowledgeFlowBackbone',
        student=cfg.backbone,
        teachers=[teacher(config=RETINANET), teacher('b', CIFAR)])
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(SIDE, SIDE)))
        sample.gt_sem_seg = PixelData(data=torch.randint(
            0, 19, (1, SIDE, SIDE)))
        samples.append(sample)
    model = train('mmseg', cfg, samples)
    assert type(model.backbone) is mmseg.models.ResNetV1c
    assert flow_of(model).candidates[-1][1:] == ('a:layer4.1', 'b:layer3.0')
