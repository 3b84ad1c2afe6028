"""``--backbone-from`` with students of other classes than the config's
backbone: strides, widths of necks and heads, networks for small images."""

import pytest
import torch

from mmkd_rl import with_backbone
from mmkd_rl.recipes.levels import levels
from tests.test_backbone_from import (
    PSPNET,
    RETINANET,
    assert_arrived,
    started,
    student,
)


@pytest.mark.downstream
@pytest.mark.parametrize('config, backbone, more', [
    ('mmdet::regnet/retinanet_regnetx-800MF_fpn_1x_coco.py',
     dict(type='RegNet', arch='regnetx_800mf'), False),
    ('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
     dict(type='SwinTransformer', arch='tiny', img_size=224), True),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
     dict(type='MobileNetV2'), False),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
     dict(type='ResNeXt', depth=50, groups=32, width_per_group=4), False),
    ('mmseg::vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py',
     dict(type='VisionTransformer', arch=dict(
         embed_dims=32, num_layers=4, num_heads=2,
         feedforward_channels=64), img_size=64, patch_size=16), False),
    ('mmseg::mobilenet_v2/mobilenet-v2-d8_pspnet_4xb2-80k_cityscapes-'
     '512x1024.py', dict(type='MobileNetV2'), False),
    ('mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
     dict(type='ConvNeXt', arch='tiny'), True),
    ('mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py',
     dict(type='HRNet', arch='w18'), False),
    ('mmdet::res2net/faster-rcnn_res2net-101_fpn_2x_coco.py',
     dict(type='Res2Net', depth=50, scales=4, base_width=26), False),
    ('mmdet::resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-'
     '1x_coco.py', dict(type='ResNeSt', depth=50), False),
    ('mmdet::yolox/yolox_s_8xb8-300e_coco.py',
     dict(type='CSPDarkNet', depth=53), False),
    ('mmdet::efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
     dict(type='EfficientNet', arch='b0'), False),
    ('mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
     dict(type='MobileNetV2'), False),
    ('mmseg::hrnet/fcn_hr18_4xb2-80k_cityscapes-512x1024.py',
     dict(type='HRNet', arch='w18'), False),
    ('mmseg::resnest/resnest_s101-d8_pspnet_4xb2-80k_cityscapes512x1024.py',
     dict(type='ResNeSt', depth=50), False),
    ('mmseg::mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-'
     '512x1024.py', dict(type='MobileNetV3', arch='large'), False),
    ('mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_'
     'ade20k-512x512.py', dict(type='SwinTransformer', arch='tiny'), True),
    ('mmseg::twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py',
     dict(type='PCPVT', arch='small'), False),
    ('mmseg::twins/twins_svt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py',
     dict(type='SVT', arch='small'), False),
    ('mmseg::mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py',
     dict(type='VisionTransformer', img_size=224, arch=dict(
         embed_dims=32, num_layers=12, num_heads=2,
         feedforward_channels=64)), False),
    ('mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',
     dict(type='BEiTViT', img_size=224, arch=dict(
         embed_dims=32, num_layers=12, num_heads=2,
         feedforward_channels=64)), False),
    # Networks that only MMPretrain has, without an output of stride 4.
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
     dict(type='ShuffleNetV2'), False),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
     dict(type='TIMMBackbone', model_name='resnet18'), False),
])
def test_families_that_two_toolboxes_have(tmp_path, config, backbone, more):
    """Classes of the same name, or MMPretrain's class. Outputs of dense
    tasks may have norms that a classifier lacks; all else is loaded."""
    path, net = student(backbone, tmp_path)
    model = started(with_backbone(config, path))
    new = assert_arrived(model, net)
    assert all(name.startswith('norm') for name in new) and (more or not new)
    # Two-stage detectors cannot be run without annotations.
    side = 512 if 'lraspp' in config else 224
    images = torch.randn(1, 3, side, side)
    model.eval()
    with torch.no_grad():
        outputs = model(images, mode='tensor') if config.startswith(
            'mmseg') else model.extract_feat(images)
    assert all(output.isfinite().all() for output in outputs)


CIFAR = dict(
    resnet=dict(type='mmkd_rl.CifarResNet', depth=8),
    vgg=dict(type='mmkd_rl.CifarVGG', depth=8),
    shufflenet=dict(type='mmkd_rl.CifarShuffleNetV2', width_mult=0.5),
    mobilenet=dict(type='mmkd_rl.CifarMobileNetV2', width_mult=0.25))


@pytest.mark.parametrize('name, pool, widths, strides', [
    ('resnet', 4, [16, 32, 64], [4, 8, 16]),
    ('vgg', 4, [64, 128, 256, 512], [4, 8, 16, 32]),
    ('shufflenet', 2, [48, 96, 1024], [4, 8, 16]),
    ('mobilenet', 2, [6, 8, 24, 1280], [4, 8, 16, 32])])
def test_a_cifar_student_in_a_detector(tmp_path, name, pool, widths, strides):
    """Its stem is pooled to a stride of 4, and the feature pyramid makes the
    levels that a network of three stages lacks."""
    path, net = student(CIFAR[name], tmp_path)
    new = with_backbone('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
                        path)
    assert new.model.backbone.stem_pool == pool
    assert new.model.neck.in_channels == widths
    # so that MMDetection's own tools can run the config
    assert new.custom_imports.imports == ['mmkd_rl']
    model = started(new)
    assert_arrived(model, net)
    images = torch.randn(1, 3, 128, 192)
    assert [192 // x.shape[-1] for x in model.backbone(images)] == strides
    assert [192 // x.shape[-1] for x in model.extract_feat(images)] == [
        4, 8, 16, 32, 64]


@pytest.mark.parametrize('config, strides', [
    (RETINANET, [8, 16, 32, 64, 128]),
    ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
     [8, 16, 32, 64, 128]),
    ('mmdet::pafpn/faster-rcnn_r50_pafpn_1x_coco.py', [4, 8, 16, 32, 64])])
def test_the_strides_behind_a_neck_stay(tmp_path, config, strides):
    path, net = student(CIFAR['resnet'], tmp_path)
    model = started(with_backbone(config, path))
    assert_arrived(model, net)
    images = torch.randn(1, 3, 128, 256)
    assert [round(256 / x.shape[-1]) for x in model.extract_feat(images)] == \
        strides


@pytest.mark.parametrize('config', [
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',  # three fixed levels
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',  # stride 32 alone
    # no neck, four levels
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'])
def test_a_neck_without_the_students_strides(tmp_path, config):
    path, _ = student(CIFAR['resnet'], tmp_path)
    with pytest.raises(ValueError, match=r'has outputs of strides \[1, 2, 4\]'
                       r'.*made for \[.*32\].*demo_mask_rcnn'):
        with_backbone(config, path)


@pytest.mark.parametrize('config, classes, pool, widths', [
    (PSPNET, 19, 2, 64),
    ('mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.py', 150, 4,
     [16, 32, 64])])
def test_a_cifar_student_in_a_segmentor(tmp_path, config, classes, pool,
                                        widths):
    """A segmentor resizes maps, so that any strides fit; the last one is the
    nearest to the config's, here 8 and 32."""
    path, net = student(CIFAR['resnet'], tmp_path)
    new = with_backbone(config, path)
    assert new.model.backbone.stem_pool == pool
    assert new.model.decode_head.in_channels == widths
    model = started(new)
    assert_arrived(model, net)
    images = torch.randn(1, 3, 64, 64)
    assert model.eval()(images, mode='tensor').shape[1] == classes


@pytest.mark.parametrize('config', [
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    'mmseg::ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'mmdet::libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py'])
def test_widths_of_necks_and_heads_of_all_kinds(tmp_path, config):
    """Lists of necks and heads, one input, the decoder's second input."""
    path, net = student(dict(type='MobileNetV2'), tmp_path)
    model = started(with_backbone(config, path)).eval()
    assert_arrived(model, net)
    images = torch.randn(1, 3, 64, 64)
    if config.startswith('mmdet'):
        assert model.extract_feat(images)
    else:
        assert model(images, mode='tensor').shape[1] == 19


def test_widths_of_a_transformer_behind_the_backbone(tmp_path):
    path, _ = student(dict(type='VGG', depth=11), tmp_path)
    new = with_backbone(
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', path)
    assert new.model.panoptic_head.in_channels == [
        width for _, width in levels(new.model.backbone, 'mmdet')]
    assert 'in_index' not in new.model.panoptic_head


def test_a_detector_gets_maps_in_the_default_memory_format(tmp_path):
    """MMCV's RoIAlign reads others wrongly and does not check. A segmentor has
    no such operator and keeps the student's format."""
    path, _ = student(dict(CIFAR['resnet'], channels_last=True), tmp_path)
    new = with_backbone('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
                        path)
    assert all(x.is_contiguous() for x in started(new).extract_feat(
        torch.randn(2, 3, 64, 64)))
    assert with_backbone(PSPNET, path).model.backbone.channels_last


@pytest.mark.parametrize('backbone', [
    dict(type='ConvNeXt', arch='atto'), dict(type='HorNet', arch='tiny')])
def test_a_classifier_that_averages_its_last_map(tmp_path, backbone):
    """As a detector's backbone it gives maps."""
    path, net = student(backbone, tmp_path)
    model = started(with_backbone(
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', path))
    assert_arrived(model, net)
    assert len(model.extract_feat(torch.randn(1, 3, 64, 64))) == 5


def test_the_last_layers_of_a_deep_transformer(tmp_path):
    """A ViT of 24 layers with as many outputs, not the first twelve."""
    path, _ = student(dict(type='VisionTransformer', img_size=64, arch=dict(
        embed_dims=32, num_layers=24, num_heads=2, feedforward_channels=64)),
        tmp_path)
    new = with_backbone(PSPNET, path)
    assert new.model.backbone.out_indices == (20, 21, 22, 23)


def test_a_student_that_gives_all_outputs(tmp_path):
    path, net = student(dict(type='HRNet', arch='w18'), tmp_path)
    model = started(with_backbone(RETINANET, path))
    assert not assert_arrived(model, net)
    assert len(model.extract_feat(torch.randn(1, 3, 64, 64))) == 5
