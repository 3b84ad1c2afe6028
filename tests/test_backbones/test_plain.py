"""Sizes, order of layers and bad input of MLP, PlainConvNet and DenseNet."""

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from torch import nn

from mmkd_rl.backbones import MLP, CifarDenseNet, PlainConvNet
from mmkd_rl.registry import MODELS


def parameters(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def classifier(backbone, channels, classes=10, neck=None):
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=backbone,
            neck=neck and dict(type=f'mmpretrain.{neck}'),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=classes,
                in_channels=channels,
                loss=dict(type='mmpretrain.CrossEntropyLoss'))))


# MLP


@pytest.mark.parametrize('hidden, count', [
    # parameters of the whole classifier: sum of (in + 1) * out
    ((1200, 1200), 785 * 1200 + 1201 * 1200 + 1201 * 10),
    ((800, 800), 785 * 800 + 801 * 800 + 801 * 10),
    ((256, 256), 785 * 256 + 257 * 256 + 257 * 10),
])
def test_mlp_has_the_parameters_that_it_should(hidden, count):
    model = classifier(dict(type='mmkd_rl.MLP', hidden=hidden), hidden[-1])
    assert parameters(model) == count


def test_mlp_is_its_formula_and_its_layers_are_outputs():
    torch.manual_seed(0)
    net = MLP(in_shape=(2, 3, 4), hidden=(7, 5), out_indices=(0, 1)).double()
    x = torch.randn(6, 2, 3, 4).double()
    first, second = net(x)
    want = x.reshape(6, 24)
    for layer, got in ((net.layer1, first), (net.layer2, second)):
        want = (want @ layer.fc.weight.T + layer.fc.bias).clamp(min=0)
        torch.testing.assert_close(got, want)
    assert first.shape == (6, 7) and second.shape == (6, 5)
    assert net.out_channels == (7, 5)
    assert net.input_shape == (2, 3, 4)


def test_mlp_drops_behind_each_hidden_layer(monkeypatch):
    seen = []
    drop = F.dropout
    monkeypatch.setattr(
        F, 'dropout', lambda x, p, training:
        (seen.append((x.shape[1], p)), drop(x, p, training))[1])
    net = MLP(hidden=(8, 6, 4), dropout=.5)
    for layer in net.stages:
        assert isinstance(layer[-1], nn.ReLU) and not layer[-1].inplace
    x = torch.rand(4, 1, 28, 28)
    assert not torch.equal(net(x)[0], net(x)[0])
    # No dropout on the image, and once on each layer's output.
    assert seen[:4] == [(784, 0), (8, .5), (6, .5), (4, .5)]
    net.eval()
    assert torch.equal(net(x)[0], net(x)[0])
    without = MLP(hidden=(8, 6, 4))
    without.load_state_dict(net.state_dict())
    assert torch.equal(net(x)[0], without(x)[0])


def test_mlp_trains_in_a_classifier():
    torch.manual_seed(0)
    model = classifier(
        dict(type='mmkd_rl.MLP', in_shape=(1, 4, 4), hidden=(6, 5)), 5)
    model.init_weights()
    data = torch.rand(3, 1, 4, 4)
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    model.loss(data, samples)['loss'].backward()
    assert all(p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    assert model.backbone.layer1.fc.bias.eq(0).all()
    assert len(model.predict(data)) == 3


def test_mlp_freezes_its_first_layers():
    net = MLP(in_shape=(1, 2, 2), hidden=(3, 3), frozen_stages=1)
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert trained == {'layer2.fc.weight', 'layer2.fc.bias'}


@pytest.mark.parametrize('kwargs, message', [
    (dict(in_shape=784), r'in_shape must be \(channels, .* got 784'),
    (dict(in_shape=(28, 28)), r'in_shape must be .* got \(28, 28\)'),
    (dict(in_shape=(0, 28, 28)), r'in_shape\[0\] must be .* got 0'),
    (dict(hidden=()), r'hidden must be .* got \(\)'),
    (dict(hidden=1200), 'hidden must be .* got 1200'),
    (dict(hidden=(1200, 0.5)), r'hidden\[1\] must be .* got 0\.5'),
    (dict(dropout=1.), r'dropout must be in \[0, 1\), got 1\.0'),
    (dict(out_indices=(2, )), r'MLP: out_indices .*\(2,\)'),
    (dict(frozen_stages=3), 'MLP: frozen_stages .* got 3'),
])
def test_bad_mlp_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MLP(**kwargs)


def test_mlp_says_which_images_it_takes():
    with pytest.raises(ValueError,
                       match=r'in_shape=\(1, 28, 28\).*\(3, 32, 32\)'):
        MLP(hidden=(2, ))(torch.rand(1, 3, 32, 32))


# PlainConvNet


def plain_reference(net, x, plan, paddings):
    """A second implementation: convolutions and poolings in order."""
    convs = iter([m for m in net.modules() if isinstance(m, nn.Conv2d)])
    paddings = iter(paddings)
    for entry in plan:
        if entry == 'pool':
            x = F.max_pool2d(x, 2)
            continue
        conv = next(convs)
        assert conv.out_channels == entry
        x = F.conv2d(x, conv.weight, padding=next(paddings))
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (
            x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = x.clamp(min=0)
    assert next(convs, None) is None
    return x


@pytest.mark.parametrize('preset, size, plan, paddings', [
    ('cifar', 32, [4, 4, 'pool', 8, 8, 'pool', 16, 16, 'pool', 32, 'pool'],
     [1] * 6 + [0]),
    ('stl10', 96, [
        4, 'pool', 8, 'pool', 16, 'pool', 16, 'pool', 32, 32, 'pool'
    ], [1] * 4 + [0] * 2),
])
def test_presets_are_the_published_order(preset, size, plan, paddings):
    torch.manual_seed(0)
    net = PlainConvNet(preset, width=4).double()
    x = torch.randn(3, 3, size, size).double()
    out, = net(x)
    assert out.shape == (3, 32, 1, 1)
    torch.testing.assert_close(out, plain_reference(net, x, plan, paddings))


@pytest.mark.parametrize('preset, width, millions', [
    # 9 * in * out of each convolution after the first
    ('cifar', 128, 9 * (1 + 2 + 4 + 8 + 16 + 32) * 128**2 / 1e6),
    ('stl10', 32, 9 * (2 + 8 + 16 + 32 + 64) * 32**2 / 1e6),
])
def test_presets_have_the_parameters_of_their_plan(preset, width, millions):
    with torch.device('meta'):
        net = PlainConvNet(preset, width=width)
    first = 9 * 3 * width
    assert parameters(net) == round(millions * 1e6) + first


def test_half_the_width_is_half_the_channels_of_every_layer():
    wide, narrow = (PlainConvNet('cifar', width=w) for w in (8, 4))
    for one, other in zip(wide.modules(), narrow.modules()):
        if isinstance(one, nn.Conv2d):
            assert one.out_channels == 2 * other.out_channels


def test_stages_end_in_their_activation():
    net = PlainConvNet('stl10', width=1)
    for stage in net.stages:
        assert isinstance(stage[-1].relu, nn.ReLU)
        assert not stage[-1].relu.inplace


def test_own_stages():
    net = PlainConvNet(
        [(3, ), dict(channels=[5, 7], padding=0)],
        width=2,
        in_channels=1,
        last_pool=False,
        norm_cfg=dict(type='BN'),
        out_indices=(0, 1))
    shapes = [tuple(x.shape) for x in net(torch.rand(2, 1, 20, 24))]
    assert shapes == [(2, 6, 20, 24), (2, 14, 6, 8)]
    assert net.out_channels == (6, 14)
    assert net.layer1[0].bn.weight is not None


@pytest.mark.parametrize('kwargs, message', [
    (dict(stages='svhn'), "stages must be one of .*'cifar', 'stl10'.*'svhn'"),
    (dict(stages=[]), r'stages must be a list .* got \[\]'),
    (dict(stages=[(1, ), 2]), r'stages\[1\] must be .* got 2'),
    (dict(stages=[()]), r'stages\[0\] must be .* got \(\)'),
    (dict(stages=[(1, 0)]), r'stages\[0\]\.channels\[1\] must be .* got 0'),
    (dict(stages=[dict(channels=(1, ), pad=0)]), r"stages\[0\] .*'pad'"),
    (dict(stages=[dict(channels=(1, ), padding=-1)]),
     r'stages\[0\]\.padding must be .* >= 0, got -1'),
    (dict(width=0), 'width must be .* got 0'),
    (dict(width=1.5), r'width must be .* got 1\.5'),
])
def test_bad_plain_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PlainConvNet(**kwargs)


# DenseNet


@pytest.mark.parametrize('kwargs, printed', [
    # Table 2 of the DenseNet paper, C10
    (dict(depth=40, growth_rate=12), 1.0),
    (dict(depth=100, growth_rate=12), 7.0),
    (dict(depth=100, growth_rate=24), 27.2),
    (dict(depth=100, growth_rate=12, bottleneck=True, reduction=.5), 0.8),
    (dict(depth=250, growth_rate=24, bottleneck=True, reduction=.5), 15.3),
    (dict(depth=190, growth_rate=40, bottleneck=True, reduction=.5), 25.6),
])
def test_densenet_has_the_printed_parameters(kwargs, printed):
    with torch.device('meta'):
        net = CifarDenseNet(**kwargs)
        head = nn.Linear(net.out_channels[-1], 10)
    assert parameters(net, head) / 1e6 == pytest.approx(printed, abs=.0501)


def test_the_default_is_the_one_of_knowledge_flow():
    with torch.device('meta'):
        net = CifarDenseNet()
    assert [len(stage) for stage in net.stages] == [32, 33, 33]
    assert net.out_channels == (16 + 3 * 32 * 24, )


def test_a_dense_layer_keeps_what_came_and_adds_k_maps():
    net = CifarDenseNet(
        depth=10, growth_rate=4, bottleneck=True, reduction=.5).eval()
    x = torch.rand(2, 8, 6, 6)
    layer = net.layer1[0]
    out = layer(x)
    assert out.shape == (2, 12, 6, 6)
    assert torch.equal(out[:, :8], x)
    want = layer.conv2(layer.bn2(layer.conv1(layer.bn1(x).relu())).relu())
    assert torch.equal(out[:, 8:], want)


def test_densenet_strides_and_channels():
    net = CifarDenseNet(depth=10, growth_rate=4, out_indices=(0, 1, 2))
    shapes = [tuple(x.shape) for x in net(torch.rand(2, 3, 32, 64))]
    assert shapes == [(2, 24, 32, 64), (2, 32, 16, 32), (2, 40, 8, 16)]
    assert net.out_channels == (24, 32, 40)


def test_densenet_drops_where_asked():
    net = CifarDenseNet(depth=10, growth_rate=4, dropout=.5)
    x = torch.rand(2, 3, 8, 8)
    assert not torch.equal(net(x)[0], net(x)[0])


@pytest.mark.parametrize('kwargs, message', [
    (dict(depth=101), r'depth must be 3n \+ 4 .* got 101'),
    (dict(depth=40.), r'depth must be .* got 40\.0'),
    (dict(depth=4), 'depth must be .* got 4'),
    (dict(depth=13, bottleneck=True), r'depth must be 6n \+ 4 .* got 13'),
    (dict(growth_rate=0), 'growth_rate must be .* got 0'),
    (dict(reduction=0.), r'reduction must be in \(0, 1\], got 0\.0'),
    (dict(reduction=1.5), r'reduction must be .* got 1\.5'),
    (dict(dropout=1), r'dropout must be in \[0, 1\), got 1'),
])
def test_bad_densenet_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CifarDenseNet(**kwargs)
