"""Converted weights give the same logits as under their old names.

Networks of torchvision and timm are compared directly. Those of the CRD
repository are implemented here as functions of the old names, which draw a
weight at its first use.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from mmengine.registry import init_default_scope

from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.loading import load_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'model_converters' / 'convert.py'
    spec = importlib.util.spec_from_file_location('convert', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(backbone, width, classes, head='LinearClsHead', neck=True):
    init_default_scope('mmkd_rl')
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=backbone,
            neck=dict(type='mmpretrain.GlobalAveragePooling')
            if neck else None,
            head=dict(
                type=f'mmpretrain.{head}',
                num_classes=classes,
                in_channels=width))).eval()


def perturb(model):
    """Change statistics and scales of norms, which are initially ones and
    zeros."""
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim <= 1:
            tensor.add_(torch.rand(tensor.shape, generator=generator) / 5)
    return model.eval()


@torch.no_grad()
def assert_same(old, new, converted, size):
    load_weights(new, converted, 'file', 'key')
    images = torch.rand(2, 3, size, size)
    torch.testing.assert_close(
        new(images, mode='tensor'), old(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name, backbone, width', [
    ('resnet18', dict(type='mmpretrain.ResNet', depth=18), 512),
    ('resnext50_32x4d',
     dict(type='mmpretrain.ResNeXt', depth=50, groups=32, width_per_group=4),
     2048),
])
def test_torchvision(tool, name, backbone, width):
    old = perturb(torchvision.models.get_model(name, num_classes=7))
    weights = tool.convert(old.state_dict(), 'torchvision')
    assert_same(old, build(backbone, width, 7), weights, 64)


@pytest.mark.parametrize('name, kind, head', [
    ('deit_tiny_patch16_224', 'VisionTransformer',
     'VisionTransformerClsHead'),
    ('deit_tiny_distilled_patch16_224', 'DistilledVisionTransformer',
     'DeiTClsHead'),
])
def test_timm(tool, name, kind, head):
    sizes = dict(img_size=32, patch_size=8)
    old = perturb(timm.create_model(
        name, embed_dim=12, depth=2, num_heads=3, num_classes=7, **sizes))
    new = build(
        dict(
            type=f'mmpretrain.{kind}',
            arch=dict(
                embed_dims=12,
                num_layers=2,
                num_heads=3,
                feedforward_channels=48),
            **sizes), 12, 7, head, neck=False)
    assert_same(old, new, tool.convert(old.state_dict(), 'timm'), 32)


class Old:
    """Layers by their names in a checkpoint; weights are drawn as needed."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.state = {}

    def draw(self, name, *shape, low=-1., high=1.):
        if name not in self.state:
            value = torch.rand(shape, generator=self.generator)
            self.state[name] = low + (high - low) * value
        assert self.state[name].shape == shape
        return self.state[name]

    def conv(self, name, x, width, kernel=3, stride=1, groups=1, bias=False):
        fan = x.shape[1] // groups * kernel**2
        bound = (3 / fan)**.5
        weight = self.draw(f'{name}.weight', width, x.shape[1] // groups,
                           kernel, kernel, low=-bound, high=bound)
        return F.conv2d(
            x, weight, self.draw(f'{name}.bias', width) if bias else None,
            stride, kernel // 2, 1, groups)

    def bn(self, name, x):
        n = x.shape[1]
        self.state[f'{name}.num_batches_tracked'] = torch.tensor(5)
        return F.batch_norm(
            x, self.draw(f'{name}.running_mean', n),
            self.draw(f'{name}.running_var', n, low=.5),
            self.draw(f'{name}.weight', n, low=.5),
            self.draw(f'{name}.bias', n))

    def linear(self, name, x, classes=10):
        x = x.mean((2, 3))
        return F.linear(x, self.draw(f'{name}.weight', classes, x.shape[1]),
                        self.draw(f'{name}.bias', classes))


def old_resnet(o, x):  # resnet14
    x = o.bn('bn1', o.conv('conv1', x, 16)).relu()
    for i, width in enumerate((16, 32, 64)):
        for j in range(2):
            b = f'layer{i + 1}.{j}'
            stride = 2 if i and not j else 1
            y = o.bn(f'{b}.bn1', o.conv(f'{b}.conv1', x, width, 3, stride))
            y = o.bn(f'{b}.bn2', o.conv(f'{b}.conv2', y.relu(), width))
            if stride == 2:
                x = o.bn(f'{b}.downsample.1',
                         o.conv(f'{b}.downsample.0', x, width, 1, 2))
            x = (x + y).relu()
    return o.linear('fc', x)


def old_wrn(o, x):  # WRN-16-2
    x = o.conv('conv1', x, 16)
    for i, width in enumerate((32, 64, 128)):
        for j in range(2):
            b = f'block{i + 1}.layer.{j}'
            stride = 2 if i and not j else 1
            y = o.bn(f'{b}.bn1', x).relu()
            if not j:
                x = o.conv(f'{b}.convShortcut', y, width, 1, stride)
            y = o.conv(f'{b}.conv1', y, width, 3, stride)
            x = x + o.conv(f'{b}.conv2', o.bn(f'{b}.bn2', y).relu(), width)
    return o.linear('fc', o.bn('bn1', x).relu())


def old_vgg(o, x):  # vgg13_bn
    for i, width in enumerate((64, 128, 256, 512, 512)):
        for j in (0, 3):
            b = f'block{i}'
            x = o.conv(f'{b}.{j}', x, width, bias=True)
            x = o.bn(f'{b}.{j + 1}', x).relu()
        if i < 3:
            x = F.max_pool2d(x, 2)
    return o.linear('classifier', x)


def old_mobilenet(o, x):  # mobile_half
    x = o.bn('conv1.1', o.conv('conv1.0', x, 16, 3, 2)).relu()
    rows = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2),
            (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for i, (t, c, n, s) in enumerate(rows):
        for j in range(n):
            b = f'blocks.{i}.{j}.conv'
            stride = s if j == 0 else 1
            wide = t * x.shape[1]
            y = o.bn(f'{b}.1', o.conv(f'{b}.0', x, wide, 1)).relu()
            y = o.conv(f'{b}.3', y, wide, 3, stride, groups=wide)
            y = o.bn(f'{b}.4', y).relu()
            y = o.bn(f'{b}.7', o.conv(f'{b}.6', y, c // 2, 1))
            x = x + y if x.shape == y.shape and stride == 1 else y
    x = o.bn('conv2.1', o.conv('conv2.0', x, 1280, 1)).relu()
    return o.linear('classifier.0', x)


def old_shufflenet(o, x):  # ShuffleV2 of net_size 0.5
    x = o.bn('bn1', o.conv('conv1', x, 24, 1)).relu()

    def unit(b, k, x, width, stride=1):
        y = o.bn(f'{b}.bn{k}', o.conv(f'{b}.conv{k}', x, width, 1)).relu()
        y = o.conv(f'{b}.conv{k + 1}', y, width, 3, stride, groups=width)
        y = o.bn(f'{b}.bn{k + 1}', y)
        y = o.conv(f'{b}.conv{k + 2}', y, width, 1)
        return o.bn(f'{b}.bn{k + 2}', y).relu()

    for i, (width, n) in enumerate(((48, 3), (96, 7), (192, 3))):
        for j in range(n + 1):
            b, half = f'layer{i + 1}.{j}', width // 2
            if j == 0:
                left = o.conv(f'{b}.conv1', x, x.shape[1], 3, 2,
                              groups=x.shape[1])
                left = o.conv(f'{b}.conv2', o.bn(f'{b}.bn1', left), half, 1)
                left = o.bn(f'{b}.bn2', left).relu()
                right = unit(b, 3, x, half, 2)
            else:
                left, right = x[:, :half], unit(b, 1, x[:, half:], half)
            x = torch.stack((left, right), 2).flatten(1, 2)
    x = o.bn('bn2', o.conv('conv2', x, 1024, 1)).relu()
    return o.linear('linear', x)


def old_regnet(o, x):  # RegNetY_400MF
    x = o.bn('bn1', o.conv('conv1', x, 64)).relu()
    for i, (width, n) in enumerate(((32, 1), (64, 2), (160, 7), (384, 12))):
        for j in range(n):
            b = f'layer{i + 1}.{j}'
            stride = 2 if i >= 2 and not j else 1
            y = o.bn(f'{b}.bn1', o.conv(f'{b}.conv1', x, width, 1)).relu()
            y = o.conv(f'{b}.conv2', y, width, 3, stride, width // 16)
            y = o.bn(f'{b}.bn2', y).relu()
            squeezed = y.mean((2, 3), keepdim=True)
            squeezed = o.conv(f'{b}.se.se1', squeezed, x.shape[1] // 4, 1,
                              bias=True).relu()
            y = y * o.conv(
                f'{b}.se.se2', squeezed, width, 1, bias=True).sigmoid()
            y = o.bn(f'{b}.bn3', o.conv(f'{b}.conv3', y, width, 1))
            if not j:
                x = o.bn(f'{b}.shortcut.1',
                         o.conv(f'{b}.shortcut.0', x, width, 1, stride))
            x = (x + y).relu()
    return o.linear('linear', x)


CRD = {
    'resnet': (old_resnet, dict(type='mmkd_rl.CifarResNet', depth=14), 64),
    'wrn': (old_wrn,
            dict(type='mmkd_rl.CifarWideResNet', depth=16, widen_factor=2),
            128),
    'vgg': (old_vgg, dict(type='mmkd_rl.CifarVGG', depth=13), 512),
    'mobilenetv2': (old_mobilenet,
                    dict(type='mmkd_rl.CifarMobileNetV2', width_mult=.5),
                    1280),
    'shufflenetv2': (old_shufflenet,
                     dict(type='mmkd_rl.CifarShuffleNetV2', width_mult=.5),
                     1024),
    'regnet': (old_regnet,
               dict(type='mmkd_rl.CifarRegNet', arch='regnety_400mf'), 384),
}


def test_every_family_is_tested(tool):
    assert CRD.keys() == tool.CRD.keys()


@pytest.mark.parametrize('family', CRD)
def test_crd(tool, family):
    forward, backbone, width = CRD[family]
    old = Old()
    forward(old, torch.rand(1, 3, 32, 32))
    weights = tool.convert(old.state, 'crd')
    assert len(weights) == len(old.state)
    assert_same(lambda x: forward(old, x), build(backbone, width, 10),
                weights, 32)


def run(tool, monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['convert.py', *map(str, args)])
    try:
        tool.main()
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize('wrap', [
    lambda s: dict(model=s, epoch=240),
    lambda s: dict(net={f'module.{n}': t for n, t in s.items()}, acc=72.),
    lambda s: s,
])
def test_from_file_to_file(tool, tmp_path, monkeypatch, capsys, wrap):
    old = Old()
    old_resnet(old, torch.rand(1, 3, 32, 32))
    torch.save(wrap(old.state), tmp_path / 'old.pth')
    config = tmp_path / 'config.py'
    config.write_text(
        "model = dict(type='mmpretrain.ImageClassifier', backbone=dict("
        "type='mmkd_rl.CifarResNet', depth=14), neck=dict("
        "type='mmpretrain.GlobalAveragePooling'), head=dict("
        "type='mmpretrain.LinearClsHead', num_classes=10, in_channels=64))\n")
    assert run(tool, monkeypatch, tmp_path / 'old.pth', tmp_path / 'new.pth',
               '--from', 'crd', '--config', config) == 0
    assert 'fits' in capsys.readouterr().out
    new = torch.load(tmp_path / 'new.pth', weights_only=True)['state_dict']
    assert torch.equal(new['head.fc.weight'], old.state['fc.weight'])


def test_messages(tool, tmp_path, monkeypatch, capsys):
    old = Old()
    old_wrn(old, torch.rand(1, 3, 32, 32))
    source, out = tmp_path / 'old.pth', tmp_path / 'new.pth'
    torch.save(dict(model=dict(old.state, extra=torch.ones(1))), source)
    cases = {
        ('crd', ): '1 of .* not of the CRD repository.s wrn: extra',
        ('torchvision', ): "not of torchvision's ResNet.*block1",
        ('timm', ): "not of timm's DeiT",
    }
    for (kind, ), message in cases.items():
        assert run(tool, monkeypatch, source, out, '--from', kind) == 2
        weights = tool.read_checkpoint(str(source), 'SOURCE')
        pytest.raises(ValueError, tool.convert, weights, kind).match(message)
        assert 'ERROR:' in capsys.readouterr().err
    assert not out.exists()
    pytest.raises(ValueError, tool.convert, dict(a=torch.ones(1)),
                  'crd').match('none of .*mobilenetv2.*resnet.*: a')
    pytest.raises(ValueError, tool.convert, old.state,
                  'caffe').match("one of .*'caffe'")
    assert run(tool, monkeypatch, tmp_path / 'no.pth', out, '--from',
               'crd') == 2
    assert 'no such file' in capsys.readouterr().err
    # the right family, and another depth
    torch.save(old.state, source)
    config = tmp_path / 'config.py'
    config.write_text(
        "model = dict(type='mmpretrain.ImageClassifier', backbone=dict("
        "type='mmkd_rl.CifarWideResNet', depth=22, widen_factor=2), head=dict("
        "type='mmpretrain.LinearClsHead', num_classes=10, in_channels=128))\n")
    assert run(tool, monkeypatch, source, out, '--from', 'crd', '--config',
               config) == 2
    assert 'missing' in capsys.readouterr().err
