"""The exported student equals the trained one, in every library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from mmengine.runner.checkpoint import _load_checkpoint_with_prefix

from mmkd_rl.export import export_student
from mmkd_rl.flow import flow_of
from mmkd_rl.registry import MODELS
from mmkd_rl.utils import checkpoint_io
from tests.toy import World, classifier, distiller, toy_teachers

TOOL = Path(__file__).parents[2] / 'tools' / 'export_student.py'
RESNET18 = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.ResNet', depth=18),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=5,
              in_channels=512))


def build(cfg, scope='mmpretrain'):
    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.build(cfg)


def shuffled(model):
    """Set weights and statistics to values that no initialisation gives."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(.05 * torch.rand(value.shape, generator=g))
    return model.eval()


@pytest.fixture
def distilled(tmp_path):
    """A distiller with teachers, and its checkpoint."""
    model = shuffled(
        MODELS.build(
            distiller(
                toy_teachers(tmp_path), weighting=dict(type='MTKDRL'))))
    return model, dict(
        state_dict=model.state_dict(),
        meta=dict(epoch=3),
        mmkd_rl_agent=model.distillation.weighting.learner.state_dict())


@pytest.fixture(scope='module')
def resnet():
    torch.manual_seed(0)
    return shuffled(build(RESNET18))


def checkpoint_of(model):
    return dict(
        state_dict=model.state_dict() | {
            'distillation.terms.1.projectors.0.0.layers.0.weight':
            torch.zeros(3)
        })


def test_wrapped_and_exported_predict_the_same(tmp_path, distilled):
    model, checkpoint = distilled
    checkpoint_io.save(export_student(checkpoint), str(tmp_path / 's.pth'))
    content = torch.load(tmp_path / 's.pth', weights_only=True)
    plain = build(classifier(8, hidden=6)).eval()
    plain.load_state_dict(content['state_dict'], strict=True)
    images = World().batch(16)[0]
    assert torch.equal(plain(images), model(images))
    for a, b in zip(plain(images, mode='predict'),
                    model(images, mode='predict')):
        assert torch.equal(a.pred_score, b.pred_score)


def test_an_export_is_a_copy(distilled):
    model, checkpoint = distilled
    weights = export_student(checkpoint)['state_dict']
    kept = {n: t.clone() for n, t in weights.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert all(torch.equal(t, kept[n]) for n, t in weights.items())
    assert not any(t.requires_grad for t in weights.values())


@pytest.mark.parametrize('wrap', [
    lambda s: s,
    lambda s: {f'module.{n}': t for n, t in s.items()},
    lambda s: {n: t for n, t in s.items() if 'distillation' not in n},
    lambda s: {f'student.{n}': t for n, t in s.items()
               if 'distillation' not in n} | {'projectors.0.x': torch.ones(1)},
], ids=['distillation', 'parallel', 'a lone network', "0.1's first layout"])
def test_whatever_the_checkpoint_is_of(distilled, wrap):
    model, checkpoint = distilled
    out = export_student(dict(state_dict=wrap(checkpoint['state_dict'])))
    own = {n: t for n, t in model.state_dict().items()
           if not n.startswith('distillation.')}
    assert set(out['state_dict']) == set(own)
    assert all(torch.equal(t, own[n]) for n, t in out['state_dict'].items())


@pytest.mark.parametrize('to', ['mmdet', 'mmseg'])
def test_only_the_backbone_goes_to_detectors(resnet, to):
    weights = export_student(checkpoint_of(resnet), to)['state_dict']
    assert {n.split('.')[0] for n in weights} == {'backbone'}
    assert len(weights) == len(resnet.backbone.state_dict())


def loaded_completely(backbone, path, resnet):
    """Whether file and backbone have the same weights and values."""
    backbone.init_weights()
    own = {
        n: t for n, t in backbone.state_dict().items()
        if not n.endswith('num_batches_tracked')
    }
    file = {
        n: t for n, t in _load_checkpoint_with_prefix(
            'backbone.', path, 'cpu').items()
        if not n.endswith('num_batches_tracked')
    }
    assert set(own) == set(file)
    trained = resnet.backbone.state_dict()
    for name, value in own.items():
        assert torch.equal(value, file[name]), name
        assert torch.equal(value, trained[name]), name


@pytest.mark.parametrize('config, package', [
    ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'mmdet'),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mmdet'),
    ('mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'mmseg'),
])
def test_detectors_and_segmentors_load_it(tmp_path, resnet, config, package):
    """Loaded as the docs describe, no weight is missing or left over."""
    pytest.importorskip(package)
    from mmengine.hub import get_config
    path = str(tmp_path / 'backbone.pth')
    checkpoint_io.save(export_student(checkpoint_of(resnet), package), path)
    cfg = get_config(config).model
    # MMSegmentation's ResNetV1c has another stem
    kind = 'ResNet' if package == 'mmdet' else 'mmseg.ResNet'
    cfg.backbone.update(
        type=kind, depth=18,
        init_cfg=dict(
            type='Pretrained', checkpoint=path, prefix='backbone.'))
    if 'neck' in cfg:
        cfg.neck.in_channels = [64, 128, 256, 512]
    cfg.pop('pretrained', None)
    if package == 'mmseg':
        cfg.backbone.norm_cfg = cfg.decode_head.norm_cfg = \
            cfg.auxiliary_head.norm_cfg = dict(type='BN')
    model = build(cfg, package)
    loaded_completely(model.backbone, path, resnet)


def test_torchvision_predicts_the_same(resnet):
    weights = export_student(checkpoint_of(resnet), 'torchvision')
    other = torchvision.models.resnet18(num_classes=5).eval()
    other.load_state_dict(weights, strict=True)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(other(images), resnet(images))


@pytest.mark.parametrize('backbone', [
    dict(type='mmkd_rl.CifarResNet', depth=8),
    dict(type='mmpretrain.ResNet_CIFAR', depth=18),
    dict(type='mmpretrain.ResNetV1d', depth=18),
    dict(type='mmpretrain.MobileNetV2'),
])
def test_torchvision_has_no_names_for_others(backbone):
    model = build(backbone)
    state = {f'backbone.{n}': t for n, t in model.state_dict().items()}
    with pytest.raises(ValueError,
                       match='--to torchvision: only ResNet.*mmpretrain'):
        export_student(dict(state_dict=state), 'torchvision')


@pytest.fixture
def flowing():
    """A classifier with Knowledge Flow after the teacher's withdrawal."""
    model = build(dict(RESNET18, backbone=dict(
        type='mmkd_rl.KnowledgeFlowBackbone', student=RESNET18['backbone'],
        probe_size=32, teachers=[dict(
            name='t', checkpoint='untrained',
            config=dict(type='mmkd_rl.CifarResNet', depth=8))])))
    shuffled(model)
    flow = flow_of(model)
    flow.strength = .5
    model.train()
    images = torch.rand(2, 3, 32, 32)
    before = model(images)
    flow.retire(['t'])
    alone = model(images)
    assert not torch.equal(before, alone)
    return model, images, alone


@pytest.mark.parametrize('to', ['mmpretrain', 'mmdet', 'mmseg',
                                'torchvision'])
def test_knowledge_flow_leaves_the_plain_network(flowing, to):
    """The exported network equals the wrapped one bit for bit, also in
    training (with the batch's statistics)."""
    model, images, alone = flowing
    out = export_student(dict(state_dict=model.state_dict()), to)
    weights = out if to == 'torchvision' else out['state_dict']
    assert not any('knowledge_flow' in n for n in weights)
    if to == 'torchvision':
        other = torchvision.models.resnet18(num_classes=5)
        other.load_state_dict(weights, strict=True)
        torch.testing.assert_close(other(images), alone)
    elif to == 'mmpretrain':
        other = build(RESNET18)
        other.load_state_dict(weights, strict=True)
        model.eval(), other.eval()
        assert torch.equal(other(images), model(images))
        other.train()
        assert torch.equal(other(images), alone)
    else:
        backbone = build(RESNET18['backbone'])
        backbone.load_state_dict(
            {n.removeprefix('backbone.'): t for n, t in weights.items()},
            strict=True)
        model.eval(), backbone.eval()
        assert torch.equal(backbone(images)[0], model.backbone(images)[0])


def test_the_tool_takes_a_checkpoint_of_knowledge_flow(
        tmp_path, flowing, monkeypatch):
    import runpy
    model = flowing[0]
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1),
                    mmkd_rl_knowledge_flow=dict(strength=1.)),
               tmp_path / 'run.pth')
    monkeypatch.setattr(sys, 'argv', [
        str(TOOL), str(tmp_path / 'run.pth'), str(tmp_path / 'out.pth'),
        '--to', 'mmdet'])
    runpy.run_path(str(TOOL), run_name='__main__')
    weights = torch.load(tmp_path / 'out.pth', weights_only=True)
    plain = {f'backbone.{n}' for n in build(RESNET18['backbone']).state_dict()}
    assert set(weights['state_dict']) == plain


@pytest.mark.parametrize('checkpoint, to, message', [
    (dict(state_dict={'a': torch.zeros(1)}), 'onnx',
     "--to must be one of.*'mmdet'.*got 'onnx'"),
    (dict(), 'mmpretrain', 'no "state_dict"'),
    (dict(state_dict={}), 'mmpretrain', 'no "state_dict"'),
    (dict(state_dict={'model.fc.weight': torch.zeros(1)}), 'mmdet',
     '--to mmdet: the student has no backbone'),
])
def test_refusals(checkpoint, to, message):
    with pytest.raises(ValueError, match=message):
        export_student(checkpoint, to)


def tool(*args):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(TOOL.parents[1])))


def test_the_tool(tmp_path, distilled):
    torch.save(distilled[1], tmp_path / 'run.pth')
    done = tool(tmp_path / 'run.pth', tmp_path / 'new' / 'out.pth', '--to',
                'mmdet')
    assert done.returncode == 0, done.stderr
    assert "prefix='backbone.'" in done.stdout
    content = torch.load(tmp_path / 'new' / 'out.pth', weights_only=True)
    assert len(content['state_dict']) == 4


@pytest.mark.parametrize('name, to, message', [
    ('absent.pth', 'mmdet', 'no such file'),
    ('cut.pth', 'mmdet', 'truncated'),
    ('run.pth', 'torchvision', 'only ResNet'),
    ('run.pth', 'onnx', 'invalid choice'),
])
def test_the_tool_refuses(tmp_path, distilled, name, to, message, monkeypatch,
                          capsys):
    """Exit code 2 and no file; run in this process, which is quicker."""
    import runpy
    torch.save(distilled[1], tmp_path / 'run.pth')
    whole = (tmp_path / 'run.pth').read_bytes()
    (tmp_path / 'cut.pth').write_bytes(whole[:len(whole) // 2])
    out = tmp_path / 'out.pth'
    monkeypatch.setattr(
        sys, 'argv',
        [str(TOOL), str(tmp_path / name), str(out), '--to', to])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_interrupted_export_leaves_no_file(tmp_path, distilled,
                                              monkeypatch):
    before = set(os.listdir(tmp_path))

    def fail(obj, file):
        Path(file).write_bytes(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='no space'):
        checkpoint_io.save(
            export_student(distilled[1]), str(tmp_path / 'out.pth'))
    assert set(os.listdir(tmp_path)) == before


def test_the_checkpoint_itself_is_not_overwritten(tmp_path, monkeypatch,
                                                  capsys):
    """Nor is a folder accepted as the output."""
    import runpy
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict={'a': torch.zeros(1)}), path)
    before = path.read_bytes()
    for out, message in ((path, 'the checkpoint itself'),
                         (tmp_path, 'is a folder')):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), str(path), str(out)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(TOOL), run_name='__main__')
        assert ended.value.code == 2 and message in capsys.readouterr().err
    assert path.read_bytes() == before
