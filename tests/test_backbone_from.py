"""``--backbone-from``: a detector or segmentor starts from all weights of a
trained student's backbone, or the message has settings that work."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from mmkd_rl import distill, with_backbone
from mmkd_rl.export import export_student
from mmkd_rl.export.description import read_settings
from mmkd_rl.registry import MODELS
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.configs import load_config

NORM = dict(mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True)
RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


def student(backbone, folder, name='epoch_1.pth'):
    """Checkpoint of a classifier in MMEngine's format, and its backbone."""
    model = dict(type='ImageClassifier', backbone=backbone,
                 neck=dict(type='GlobalAveragePooling'),
                 head=dict(type='LinearClsHead', num_classes=3,
                           in_channels=512))
    cfg = Config(dict(model=model, data_preprocessor=NORM,
                      default_scope='mmpretrain'))
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        net = registry.build(dict(model))
    for value in net.state_dict().values():
        if value.is_floating_point():  # values that no initialisation gives
            value.add_(.01 * torch.randn(value.shape))
    path = folder / name
    torch.save(dict(state_dict=net.state_dict(),
                    meta=dict(cfg=cfg.pretty_text)), path)
    return path, net.backbone


@pytest.fixture(scope='module')
def resnet18(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    path, backbone = student(dict(type='ResNet', depth=18), folder)
    (folder / 'last_checkpoint').write_text(str(path))
    return path, backbone


def started(cfg):
    """The model with initial weights, as a runner would make it."""
    init_default_scope(cfg.default_scope)
    cfg.model.get('data_preprocessor', {}).pop('batch_augments', None)
    for part in (cfg.model.backbone, cfg.model.get('decode_head', {}),
                 cfg.model.get('auxiliary_head', {})):
        if isinstance(part, dict) and part.get(
                'norm_cfg', {}).get('type') == 'SyncBN':
            part.norm_cfg = dict(type='BN')
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def assert_arrived(model, backbone):
    """Check that the model has all weights of the student's backbone."""
    own = model.backbone.state_dict()
    # But the norm of a classifier's pooled vector, which is not in a map.
    state = {name: value for name, value in backbone.state_dict().items()
             if not name.startswith('ln2.')}
    assert state.keys() <= own.keys()
    for name, value in state.items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(own[name], value), name
    return own.keys() - state.keys()


@pytest.mark.parametrize('config', [RETINANET, PSPNET])
@pytest.mark.parametrize('kind', ['run', 'checkpoint', 'export'])
def test_all_weights_and_the_normalisation(resnet18, tmp_path, config, kind,
                                           capsys):
    path, backbone = resnet18
    source = path
    if kind == 'run':
        source = path.parent
    if kind == 'export':
        source = tmp_path / 'export.pth'
        checkpoint_io.save(export_student(
            checkpoint_io.load(str(path)), 'mmdet'), str(source))
    cfg = load_config(config)
    if config == PSPNET:
        cfg.model.backbone.type = 'ResNet'  # the student's stem
    new = with_backbone(cfg, source)
    said = capsys.readouterr().out
    assert f'init_cfg.checkpoint={str(source)!r}' in said or kind == 'run'
    assert 'model.data_preprocessor.mean=[1.0, 2.0, 3.0]' in said
    assert 'init_cfg' not in cfg.model.backbone or \
        'torchvision' in cfg.model.backbone.init_cfg.checkpoint
    model = started(new)
    assert not assert_arrived(model, backbone)
    assert model.data_preprocessor.mean.flatten().tolist() == NORM['mean']
    assert model.data_preprocessor.std.flatten().tolist() == NORM['std']
    assert model.data_preprocessor._channel_conversion


def follow_advice(config, path):
    """The config with the settings of the messages, at most two: for the
    depth, then for the style."""
    cfg = config if isinstance(config, Config) else load_config(config)
    for _ in range(2):
        try:
            return with_backbone(cfg, path)
        except ValueError as error:
            advice = str(error).partition('--cfg-options ')[2]
        options = shlex.split(advice)
        assert options
        cfg.merge_from_dict({
            key: DictAction._parse_iterable(value)
            for key, value in (o.split('=', 1) for o in options)})
    return with_backbone(cfg, path)


@pytest.mark.parametrize('config', [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', PSPNET,
    'mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    'mmdet::mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py'])
def test_another_depth_stem_or_style_gets_a_line_that_works(resnet18, config):
    """The message has settings, and with exactly these the weights fit."""
    path, backbone = resnet18
    assert not assert_arrived(started(follow_advice(config, path)), backbone)


@pytest.mark.parametrize('config, stem, refused', [
    (PSPNET, 'ResNetV1c', False), (PSPNET, 'ResNetV1d', True),
    (RETINANET, 'ResNetV1c', True), (RETINANET, 'ResNetV1d', True)])
def test_deep_stems_have_other_names_in_each_toolbox(tmp_path, config, stem,
                                                     refused):
    """A config with the same stem gets MMPretrain's class; one with another
    stem is refused with a line that works. The stride of the last output
    stays 8 or 32, but for ResNetV1d, whose names depend on the strides."""
    path, net = student(dict(type=stem, depth=18), tmp_path)
    if refused:
        with pytest.raises(ValueError, match=f'model.backbone.type=.*{stem}'):
            with_backbone(config, path)
    new = follow_advice(config, path)
    assert new.model.backbone.type == f'mmpretrain.{stem}'
    assert 'contract_dilation' not in new.model.backbone
    model = started(new)
    assert not assert_arrived(model, net)
    last = model.backbone(torch.randn(1, 3, 64, 64))[-1]
    assert 64 // last.shape[-1] == (
        8 if (config, stem) == (PSPNET, 'ResNetV1c') else 32)


@pytest.mark.parametrize('backbone, toolbox, kind', [
    (dict(type='ResNet', depth=18), 'mmseg', 'ResNet'),
    (dict(type='ResNet', depth=18), 'mmdet', 'ResNet'),
    (dict(type='ResNetV1c', depth=18), 'mmseg', 'mmpretrain.ResNetV1c'),
    (dict(type='mmkd_rl.CifarResNet', depth=8, channels_last=True), 'mmdet',
     'mmkd_rl.CifarResNet'),
    (dict(type='VisionTransformer', arch=dict(
        embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),
        img_size=64, patch_size=16), 'mmseg', 'mmpretrain.VisionTransformer')])
def test_the_export_tool_prints_a_backbone_that_reads_all(
        tmp_path, monkeypatch, capsys, backbone, toolbox, kind):
    """MMSegmentation's own ViT would read none of the weights."""
    path, net = student(backbone, tmp_path)
    tool = Path(__file__).parents[1] / 'tools' / 'export_student.py'
    monkeypatch.setattr(sys, 'argv', [
        str(tool), str(path), str(tmp_path / 'out.pth'), '--to', toolbox])
    runpy.run_path(str(tool), run_name='__main__')
    said = capsys.readouterr().out
    line = re.search(r'use it with backbone=(dict\(.*\))', said)
    config = eval(line[1])  # the user's copy of the line
    assert config['type'] == kind
    imports = re.search(r'custom_imports=(dict\(.*?\)),', said)
    assert bool(imports) == ('.' in kind)
    if imports:
        import_modules_from_strings(**eval(imports[1]))
    init_default_scope(toolbox)
    built = MODELS.build(config)
    built.init_weights()
    for name, value in net.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(built.state_dict()[name], value), name
    maps = built(torch.randn(2, 3, 64, 64))
    assert all(x.dim() == 4 for x in maps)
    # RoIAlign reads no other memory format.
    assert toolbox != 'mmdet' or all(x.is_contiguous() for x in maps)


def test_layers_are_not_lost_with_a_class_that_reads_files_its_own_way(
        tmp_path):
    path, _ = student(dict(type='ResNet', depth=50), tmp_path)
    with pytest.raises(ValueError, match='DetectoRS_ResNet does not read'):
        with_backbone(
            'mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py', path)


@pytest.mark.parametrize('config, more', [
    ('mmdet::gcnet/mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco.py',
     'context_block'),
    ('mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', 'conv_offset')])
def test_layers_that_the_student_lacks_stay(tmp_path, config, more, capsys):
    """A backbone with additional layers keeps them; a deeper one is another
    network (see above)."""
    path, net = student(dict(type='ResNet', depth=50), tmp_path)
    cfg = load_config(config)
    new = with_backbone(cfg, path)
    assert new.model.backbone.type == cfg.model.backbone.type
    assert 'weights of the backbone are new' in capsys.readouterr().out
    with MODELS.switch_scope_and_registry('mmdet') as registry:
        own = registry.build(new.model.backbone)
    own.init_weights()
    for name, value in net.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(own.state_dict()[name], value), name
    assert any(more in name for name in own.state_dict())


def test_what_the_weights_compute_is_the_same(tmp_path):
    gelu = dict(type='mmkd_rl.CifarResNet', depth=8, act_cfg=dict(type='GELU'))
    path, _ = student(gelu, tmp_path)
    config = ('mmkd_rl::downstream/'
              'retinanet_cifar-resnet8_8e_bccd-320x240.py')
    with pytest.raises(ValueError, match='act_cfg=None, and the student was '
                       'trained with .*GELU.*model.backbone.act_cfg='):
        with_backbone(config, path)


def test_another_classifier_starts_from_it(tmp_path):
    path, net = student(dict(type='ResNet', depth=18), tmp_path)
    cfg = with_backbone('mmpretrain::resnet/resnet18_8xb32_in1k.py', path)
    assert cfg.data_preprocessor.to_rgb and \
        'bgr_to_rgb' not in cfg.data_preprocessor
    assert not assert_arrived(started(cfg), net)
    new = follow_advice('mmpretrain::resnet/resnet50_8xb32_in1k.py', path)
    model = started(new).eval()
    assert model(torch.randn(1, 3, 64, 64), mode='tensor').shape == (1, 1000)


def test_the_students_weights_are_the_last_that_are_loaded(resnet18, capsys):
    config = 'mmdet::cityscapes/faster-rcnn_r50_fpn_1x_cityscapes.py'
    assert load_config(config).load_from
    new = follow_advice(config, resnet18[0])
    assert new.load_from is None
    assert 'load_from=None' in capsys.readouterr().out


def test_a_dilated_config_says_that_the_stride_is_another(tmp_path, capsys):
    path, _ = student(dict(type='MobileNetV2'), tmp_path)
    with_backbone(PSPNET, path)
    said = capsys.readouterr().out
    assert re.search(r'outputs of strides \[.*32\]; .* were \[4, 8, 8, 8\]',
                     said)


@pytest.mark.parametrize('dataset, to_rgb, swaps', [
    (dict(type='CIFAR100', pipeline=[dict(type='PackInputs')]), False, True),
    (dict(type='CIFAR100', pipeline=[dict(type='PackInputs')]), True, False),
    (dict(type='RepeatDataset', dataset=dict(
        type='A', pipeline=[dict(type='LoadImageFromFile')])), False, False),
    (dict(type='A', pipeline=[dict(type='LoadImageFromFile')]), True, True)])
def test_the_order_of_channels_is_that_of_the_students_input(
        tmp_path, dataset, to_rgb, swaps):
    """CIFAR's arrays are RGB, files are read as BGR, also by detectors."""
    path, _ = student(dict(type='ResNet', depth=18), tmp_path)
    content = torch.load(path)
    text = content['meta']['cfg'].replace('to_rgb=True', f'to_rgb={to_rgb}')
    content['meta']['cfg'] = (
        f'{text}\ntrain_dataloader = {dict(dataset=dataset)}')
    torch.save(content, path)
    new = with_backbone(RETINANET, path)
    assert new.model.data_preprocessor.bgr_to_rgb is swaps


@pytest.mark.parametrize('model, where', [
    (dict(type='MultiTeacherDistiller', student=dict(
        type='A', backbone=dict(
            type='mmkd_rl.KnowledgeFlowBackbone', student=dict(
                type='ResNet')))), 'model.student.backbone.student'),
    (dict(type='SoftTeacher', detector=dict(
        type='A', backbone=dict(type='ResNet'))), 'model.detector.backbone'),
    (dict(type='A', backbone=dict(
        type='mmkd_rl.KnowledgeFlowBackbone', student=dict(type='ResNet'))),
     'model.backbone.student')])
def test_a_backbone_inside_another_model(resnet18, model, where):
    """A backbone with teachers would be replaced and lose them; a wrapped
    model has none at ``model.backbone``."""
    with pytest.raises(ValueError, match=f'is {where}; .*plain config'):
        with_backbone(Config(dict(model=model)), resnet18[0])


def distillation(cfg):
    """A distilled config with the model of ``cfg`` as the student."""
    teacher = dict(name='a', config=dict(cfg.model), checkpoint='a.pth')
    return distill(cfg, 'aver', [teacher])


def test_the_student_of_a_distillation_starts_from_it(
        resnet18, tmp_path, capsys):
    """As in a plain config, with the settings' names in the distillation."""
    path, backbone = resnet18
    cfg = load_config(PSPNET)
    cfg.model.backbone.type = 'ResNet'
    cfg = distillation(cfg)
    again = tmp_path / 'model.pth'  # not the name of a setting
    again.write_bytes(path.read_bytes())
    new = with_backbone(cfg, again)
    assert f"model.student.backbone.init_cfg.checkpoint='{again}'" in \
        capsys.readouterr().out
    assert new.model.teachers == cfg.model.teachers
    # As a runner does, whose preprocessor of the config is another one.
    assert new.data_preprocessor.mean != NORM['mean']
    new.model.setdefault('data_preprocessor', new.data_preprocessor)
    new.model.data_preprocessor.pop('batch_augments', None)
    for teacher in new.model.teachers:
        teacher.checkpoint = 'untrained'
    init_default_scope('mmseg')
    model = MODELS.build(new.model)
    assert model.data_preprocessor.mean.flatten().tolist() == NORM['mean']
    model.init_weights()
    assert not assert_arrived(model, backbone)


@pytest.mark.parametrize('given', ['s.py', dict(model=dict(type='A'))])
def test_the_student_of_a_distillation_must_be_a_models_config(
        resnet18, given):
    with pytest.raises(ValueError, match='model.student must be the config'):
        with_backbone(Config(dict(model=dict(
            type='MultiTeacherDistiller', student=given))), resnet18[0])


def test_advice_for_the_student_of_a_distillation_works(resnet18):
    path, backbone = resnet18
    new = follow_advice(distillation(load_config(PSPNET)), path)
    plain = Config(dict(new, model=new.model.student))
    assert not assert_arrived(started(plain), backbone)


@pytest.mark.parametrize('content, message', [
    ({'bbox_head.a': 0, 'backbone.b': 0}, 'of a detector or a segmentor.*'
     'bbox_head'),
    ({'panoptic_head.a': 0, 'backbone.b': 0}, 'panoptic_head'),
    ({'conv1.weight': 0}, 'no weights named "backbone.*convert.py'),
    (None, 'has no "state_dict"')])
def test_files_that_hold_no_students_backbone(tmp_path, content, message):
    file = tmp_path / 'a.pth'
    torch.save(content and dict(state_dict={
        name: torch.zeros(1) for name in content}), file)
    with pytest.raises(ValueError, match=message):
        with_backbone(RETINANET, file)


def test_a_config_may_name_the_run(tmp_path, monkeypatch, capsys):
    """``backbone_from`` in a config is the option of tools/train.py."""
    tool = Path(__file__).parents[1] / 'tools' / 'train.py'
    config = tmp_path / 'a.py'
    config.write_text(f"_base_ = ['{RETINANET}']\n"
                      "backbone_from = 'work_dirs/absent'")
    monkeypatch.setattr(sys, 'argv', [str(tool), str(config)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name='__main__')
    assert ended.value.code == 2
    assert "--backbone-from='work_dirs/absent'" in capsys.readouterr().err


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='folder without a checkpoint'):
        with_backbone(RETINANET, tmp_path)
    with pytest.raises(FileNotFoundError, match='--backbone-from=.*no such'):
        with_backbone(RETINANET, tmp_path / 'no.pth')


def test_a_file_that_says_nothing_of_its_network(resnet18, tmp_path):
    """A checkpoint without config is loaded if its weights fit. If not, the
    message says that the file does not contain the network's config."""
    path, backbone = resnet18
    bare = tmp_path / 'bare.pth'
    torch.save(dict(state_dict=torch.load(path)['state_dict']), bare)
    assert not assert_arrived(started(with_backbone(RETINANET, bare)),
                              backbone)
    with pytest.raises(ValueError, match='does not say which network'):
        with_backbone('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', bare)


def test_a_config_in_a_checkpoint_is_read_and_not_run(tmp_path):
    cfg = get_config('mmpretrain::resnet/resnet18_8xb32_in1k.py')
    settings = read_settings(cfg.pretty_text)
    assert settings['model'] == cfg.model.to_dict()
    trace = tmp_path / 'trace'
    assert read_settings(
        f'a = __import__("os").mkdir({str(trace)!r})\nb = 1') == dict(b=1)
    assert not trace.exists() and read_settings('a = (') == {}
