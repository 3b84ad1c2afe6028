"""A tap reads just what it was told to, and leaves no trace."""

import pytest
import torch
from torch import nn

from mmkd_rl.taps import OutputTaps, Tap


class Net(nn.Module):
    """Calls one ReLU twice, gives tuples and dicts, never calls ``aux``."""

    class Pair(nn.Module):

        def forward(self, x):
            return x, x + 1

    class Named(nn.Module):

        def forward(self, x):
            return dict(low=x, high=x + 2)

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.first = nn.Linear(4, 4)
        self.backbone.second = nn.Linear(4, 4)
        self.backbone.relu = nn.ReLU()
        self.pair, self.named = self.Pair(), self.Named()
        self.head = nn.Linear(4, 3)
        self.aux = nn.Linear(4, 3)

    def forward(self, x):
        net = self.backbone
        x = net.relu(net.first(x))
        x = net.relu(net.second(x))
        self.named(x)
        return self.head(self.pair(x)[1])


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def read(net, *args, **kwargs):
    tap = Tap(net, *args, **kwargs)
    with tap.recording():
        net(images())
    return tap.take()


def images():
    return torch.linspace(-1, 1, 8).view(2, 4)


def hooks_of(net):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks)
        for m in net.modules())


def test_output_and_input_of_a_module(net):
    first = net.backbone.first(images())
    assert torch.equal(read(net, 'backbone.first'), first)
    assert torch.equal(
        read(net, 'backbone.second', source='input'), first.relu())


def test_which_of_several_calls(net):
    one = net.backbone.first(images()).relu()
    two = net.backbone.second(one).relu()
    for call, value in ((0, one), (1, two), (-1, two), (-2, one)):
        assert torch.equal(read(net, 'backbone.relu', call=call), value)


def test_several_calls_are_refused_unless_one_is_meant(net):
    with pytest.raises(ValueError, match=r'runs 2 times.*call=0\.\.1'):
        read(net, 'backbone.relu')
    with pytest.raises(ValueError, match='call=2.*runs 2 times'):
        read(net, 'backbone.relu', call=2)


def test_elements_of_tuples_and_dicts(net):
    last = net.backbone.second(net.backbone.first(images()).relu()).relu()
    assert torch.equal(read(net, 'pair', index=0), last)
    assert torch.equal(read(net, 'pair'), last + 1)  # the last one
    assert torch.equal(read(net, 'named', index='high'), last + 2)


@pytest.mark.parametrize('module, index', [('pair', 2), ('pair', 'low'),
                                           ('named', 'middle')])
def test_an_element_that_is_not_there(net, module, index):
    with pytest.raises(ValueError, match=f'index={index!r}.*{module}'):
        read(net, module, index=index)


@pytest.mark.parametrize('wrong, right', [
    ('backbone.frist', 'backbone.first'),
    ('backbone.first.weight', 'backbone.first'),
    ('backbone.layer4', 'backbone.second'),
    ('haed', 'head'),
    ('', 'backbone'),
])
def test_a_wrong_path_names_the_nearest(net, wrong, right):
    with pytest.raises(ValueError) as error:
        Tap(net, wrong, key='teacher.taps.feature')
    message = str(error.value)
    assert repr(wrong) in message and repr(right) in message
    assert 'teacher.taps.feature' in message and 'Net' in message


def test_a_wrong_source(net):
    with pytest.raises(ValueError, match="'output' or 'input', got 'weight'"):
        Tap(net, 'head', source='weight')


def test_no_hook_is_left_and_the_network_is_unchanged(net):
    plain = net(images())
    tap = Tap(net, 'backbone.first')
    assert hooks_of(net) == 0
    with tap.recording():
        assert hooks_of(net) == 1
        assert torch.equal(net(images()), plain)
    assert hooks_of(net) == 0


def test_no_hook_is_left_after_an_exception(net):
    taps = OutputTaps(net, 'backbone.first', 'head', 'student')
    with pytest.raises(RuntimeError), taps.recording():
        net(torch.zeros(2, 5))
    assert hooks_of(net) == 0
    with taps.recording():  # nothing of the failed pass comes up later
        net(images())
    assert torch.equal(taps.take().logits, net(images()))


def test_a_module_that_did_not_run(net):
    with pytest.raises(ValueError, match="'aux' did not run"):
        read(net, 'aux')


def test_what_was_taken_is_forgotten(net):
    tap = Tap(net, 'head')
    with tap.recording():
        net(images())
    tap.take()
    with pytest.raises(ValueError, match='did not run'):
        tap.take()


def test_what_is_no_tensor(net):
    net.pair.forward = lambda x: (x, 'text')
    net.forward = lambda x: net.pair(x)
    with pytest.raises(ValueError, match="'pair' is a str, not a tensor"):
        read(net, 'pair')


def test_taps_keep_the_gradient(net):
    read(net, 'backbone.first').sum().backward()
    assert net.backbone.first.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('cfg, error, message', [
    (3, TypeError, 'module path or a dict'),
    (dict(source='input'), TypeError, 'a dict with "path"'),
    (dict(path='head', layer=1), ValueError, r"unknown \['layer'\].*'index'"),
])
def test_bad_tap_configs(net, cfg, error, message):
    with pytest.raises(error, match=message) as info:
        OutputTaps(net, cfg, 'head', 'student')
    assert 'student.taps.feature' in str(info.value)
