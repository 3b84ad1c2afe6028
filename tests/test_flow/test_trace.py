import pytest
import torch
from torch import nn

from mmkd_rl.flow.trace import Trace, is_activation
from mmkd_rl.registry import MODELS


@torch.no_grad()
def trace(network, size=64):
    network.eval()
    images = torch.zeros(2, 3, size, size)
    return Trace(network, lambda: network(images), 'student')


def real(**cfg):
    import mmpretrain.models  # noqa: F401
    return trace(MODELS.build(dict(cfg, type=f'mmpretrain.{cfg["type"]}')))


class Parts(nn.Module):
    """Network with a layer of each kind."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.inplace = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(True))
        self.twice = nn.Tanh()
        self.idle = nn.Sequential(nn.Linear(4, 4))
        self.opened = nn.Sequential(nn.Conv2d(4, 4, 1))
        self.pair = Pair()
        self.words = Words()
        self.scaled = Scaled()

    def forward(self, x):
        x = self.inplace(self.conv(x))
        x = self.twice(self.twice(x))
        x = self.opened[0](x)
        self.words(x)
        return self.scaled(self.pair(x)[1])


class Pair(nn.Module):

    def forward(self, x):
        return 'text', x + 1


class Words(nn.Module):

    def forward(self, x):
        return 'text'


class Scaled(nn.Module):
    """Layer with an activation inside, but not at the end."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Sigmoid()

    def forward(self, x):
        return x * self.gate(x)


@pytest.fixture
def parts():
    return trace(Parts(), 4)


def test_a_residual_block_ends_with_the_last_call_of_its_relu():
    """z of the paper is the input of the ReLU: the sum with the shortcut."""
    network = real(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    point = network.point('layer2.1')
    assert (point.path, point.source) == ('layer2.1.relu', 'input')
    assert (point.call, point.calls) == (1, 2)
    assert point.layer == 'layer2.1'
    stage = network.point('layer2')
    assert (stage.path, stage.call) == (point.path, point.call)


def test_a_bottleneck_s_relu_runs_three_times():
    for cfg in (dict(type='ResNeXt', depth=50, groups=4, stem_channels=8,
                     base_channels=8),
                dict(type='RegNet', arch='regnetx_400mf')):
        point = real(**cfg).point('layer1')
        assert (point.source, point.call, point.calls) == ('input', 2, 3)
        assert point.path.endswith('.relu')


@pytest.mark.parametrize('cfg, layer', [
    (dict(type='MobileNetV2', widen_factor=.5), 'layer2.1'),
    (dict(type='ShuffleNetV2', widen_factor=.5), 'layers.0.3'),
    (dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[8] * 4)),
     'stages.1.0'),
    (dict(type='SwinTransformer', window_size=2, pad_small_map=True,
          arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4)),
     'stages.1.blocks.0'),
    (dict(type='VisionTransformer', img_size=64, patch_size=16,
          arch=dict(embed_dims=8, num_layers=2, num_heads=1,
                    feedforward_channels=8)), 'layers.1')])
def test_blocks_that_end_with_no_activation_are_mixed_at_their_output(
        cfg, layer):
    point = real(**cfg).point(layer)
    assert (point.path, point.source) == (layer, 'output')
    assert point.index is None


def test_output_is_said_so():
    point = trace(Parts(), 4).point('inplace', fuse='output')
    assert (point.path, point.source) == ('inplace', 'output')


def test_an_activation_inside_is_not_the_end(parts):
    assert parts.point('scaled').path == 'scaled'
    assert parts.point('inplace').path == 'inplace.1'
    assert parts.point('inplace.1').path == 'inplace.1'


def test_the_first_tensor_of_a_tuple(parts):
    assert parts.point('pair').index == 1


def test_what_is_overwritten_is_known(parts):
    """The in-place ReLU overwrites the convolution's output and its own
    input."""
    assert parts.point('inplace.0').overwritten
    assert parts.point('inplace').overwritten
    assert not parts.point('inplace', fuse='output').overwritten
    assert not parts.point('conv').overwritten
    assert not parts.point('twice', call=0).overwritten


def test_calls(parts):
    first, last = (parts.point('twice', call=k) for k in (0, -1))
    assert (first.layer, first.call, first.calls) == ('twice#0', 0, 2)
    assert (last.layer, last.call) == ('twice#1', 1)


@pytest.mark.parametrize('path, call, says', [
    ('inplac.0', None, r"Parts has no layer 'inplac.0'.*'inplace.0'"),
    ('', None, "no layer ''; nearest: .*conv"),
    ('idle', None, r"'idle' does not run in the forward pass of Parts$"),
    ('opened', None, r"does not run.*; inside of it \['opened.0'\] do"),
    ('twice', None, r"'twice' runs 2 times.*path='twice', call=0..1.*block"),
    ('twice', 2, "call=2, but layer 'twice' runs 2 times"),
    ('twice', -3, 'call=-3'), ('twice', True, 'call=True'),
    ('twice', '0', "call='0'"),
    ('conv', 1, 'runs 1 times'),
    ('words', None, "layer 'words' gives a str without a tensor")])
def test_messages(parts, path, call, says):
    with pytest.raises(ValueError, match=f'^links\\[0\\].student: .*{says}'):
        parts.point(path, call=call, key='links[0].student')


def test_nothing_stays_on_the_network(parts):
    for module in parts.network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    network = Parts()
    with pytest.raises(RuntimeError):
        Trace(network, lambda: network(torch.zeros(1, 5, 2, 2)), 'x')
    for module in network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


class Plain(nn.Module):
    """Network of layers without blocks."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(.5), nn.ReLU(),
            nn.Dropout(.5), nn.Identity(),
            nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x):
        return self.body(x)


def test_layers_are_weights_with_norm_and_activation_behind_them():
    points = trace(Plain(), 4).layers()
    assert [p.layer for p in points] == [
        'body.2', 'body.5', 'body.10', 'body.12']
    assert [p.source for p in points] == ['input', 'input', 'output',
                                          'output']


def test_layers_of_a_network_of_blocks_are_its_blocks():
    points = real(type='ResNet', depth=18, stem_channels=8,
                  base_channels=8).layers()
    assert [p.layer for p in points[-8:]] == [
        f'layer{i}.{k}' for i in (1, 2, 3, 4) for k in (0, 1)]


@pytest.mark.parametrize('module, is_one', [
    (nn.ReLU(), True), (nn.GELU(), True), (nn.PReLU(), True),
    (nn.Hardswish(), True), (nn.Softmax(1), False),
    (nn.LogSoftmax(1), False), (nn.MultiheadAttention(4, 1), False),
    (nn.BatchNorm2d(2), False), (nn.Identity(), False)])
def test_activations(module, is_one):
    assert is_activation(module) == is_one
