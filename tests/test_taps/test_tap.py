"""A tap reads exactly the configured outputs, and removes its hooks."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from mmkd_rl.taps import OutputTaps, Tap


class Net(nn.Module):
    """Network that calls one ReLU twice, returns tuples and dicts, and never
    calls ``aux``."""

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
    with Tap(net, *args, **kwargs).listen(net) as listener:
        net(images())
    return listener.tensor()


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
    with tap.listen(net):
        assert hooks_of(net) == 1
        assert torch.equal(net(images()), plain)
    assert hooks_of(net) == 0


def test_no_hook_is_left_after_an_exception(net):
    taps = OutputTaps(net, ['backbone.first'], ['head'], 'student')
    with pytest.raises(RuntimeError), taps.recording(net):
        net(torch.zeros(2, 5))
    assert hooks_of(net) == 0
    with taps.recording(net) as recording:
        net(images())  # outputs of the failed pass are not returned later
    logits, = recording.output().logits
    assert torch.equal(logits, net(images()))


def test_a_module_that_did_not_run(net):
    with pytest.raises(ValueError, match="'aux' did not run"):
        read(net, 'aux')


def test_each_listener_hears_its_own_pass(net):
    tap = Tap(net, 'head')
    with tap.listen(net) as first:
        net(images())
    with tap.listen(net) as second:
        pass
    net(images())  # after it was stopped
    assert torch.equal(first.tensor(), net(images()))
    with pytest.raises(ValueError, match="'head' did not run"):
        second.tensors()


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
        OutputTaps(net, [cfg], ['head'], 'student')
    assert 'student.taps.feature' in str(info.value)


def test_all_elements_are_levels(net):
    before = net.backbone.second(net.backbone.first(images()).relu())
    last = before.relu()
    for module, levels in (('pair', (last, last + 1)),
                           ('named', (last, last + 2)),
                           ('backbone.second', (before, ))):
        taps = OutputTaps(net, [dict(path=module, index='all')], [], 'student')
        with taps.recording(net) as recording:
            net(images())
        output = recording.output()
        assert len(output.features) == len(levels) and not output.logits
        assert all(map(torch.equal, output.features, levels))


def test_all_calls_are_levels(net):
    """A detector's head is called once for each level of the pyramid."""
    one = net.backbone.first(images()).relu()
    two = net.backbone.second(one).relu()
    taps = OutputTaps(net, ['head'],
                      [dict(path='backbone.relu', call='all')], 'student')
    with taps.recording(net) as recording:
        net(images())
    levels = recording.output().logits
    assert len(levels) == 2 and all(map(torch.equal, levels, (one, two)))


def test_all_calls_of_all_elements(net):
    """Outputs have the order of calls; a single call gives one level."""
    with Tap(net, 'pair', call='all', index='all').listen(net) as listener:
        net(images())
        net(images() / 2)
    a, b, c, d = listener.tensors()
    assert torch.equal(b, a + 1) and torch.equal(d, c + 1)
    assert not torch.equal(a, c)
    with Tap(net, 'head', call='all').listen(net) as listener:
        net(images())
    assert torch.equal(listener.tensor(), net(images()))
    with Tap(net, 'aux', call='all').listen(net) as listener:
        net(images())
    with pytest.raises(ValueError, match="'aux' did not run"):
        listener.tensors()


def test_all_elements_must_be_tensors(net):
    net.pair.forward = lambda x: (x, 'text')
    net.forward = lambda x: net.pair(x)
    with Tap(net, 'pair', index='all', key='k').listen(net) as listener:
        net(images())
    with pytest.raises(ValueError, match="k: .*'pair' is a str, not a tensor"):
        listener.tensors()
    net.pair.forward = lambda x: None
    with pytest.raises(ValueError, match='is a NoneType, not a tensor'):
        read(net, 'pair', index='all')


@pytest.mark.parametrize('call', ['first', 1.])
def test_a_call_that_is_no_number(net, call):
    with pytest.raises(ValueError, match=f'call={call!r}.*runs 2 times'):
        read(net, 'backbone.relu', call=call)


def test_levels_in_the_order_of_the_config(net):
    taps = OutputTaps(net, ['backbone.second', 'backbone.first'],
                      ['head', dict(path='pair', index=0)], 'student')
    with taps.recording(net) as recording:
        net(images())
    output = recording.output()
    first = net.backbone.first(images())
    assert torch.equal(output.features[0],
                       net.backbone.second(first.relu()))
    assert torch.equal(output.features[1], first)
    assert [z.shape[1] for z in output.logits] == [3, 4]
    with pytest.raises(ValueError, match=r"student.taps.feature\[1\]: .*'no'"):
        OutputTaps(net, ['head', 'no'], [], 'student')


def test_a_module_that_was_replaced_is_read(net):
    taps = OutputTaps(net, ['backbone.first'], ['head'], 'student')
    old, new = net.backbone.first, nn.Linear(4, 4)
    net.backbone.first = new
    with taps.recording(net) as recording:
        net(images())
    feature, = recording.output().features
    assert torch.equal(feature, new(images()))
    assert not torch.equal(feature, old(images()))
    assert hooks_of(net) == 0 and not old._forward_hooks


def test_a_converters_batch_norm_is_read():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    tap = Tap(net, '1')
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(net[1], nn.SyncBatchNorm)
    with tap.listen(net) as listener:
        y = net(torch.rand(2, 3, 2, 2))
    assert torch.equal(listener.tensor(), y)


def test_a_copy_is_listened_to_alone(net):
    """The copy that EMA averages has the same module paths as the model."""
    taps = OutputTaps(net, ['backbone.first'], ['head'], 'student')
    twin = deepcopy(net)
    with torch.no_grad():
        twin.head.bias.add_(1)
    with taps.recording(twin) as recording:
        assert hooks_of(net) == 0
        net(images())
        twin(images())
    assert torch.equal(recording.output().logits[0], twin(images()))


def test_a_copy_of_what_the_network_overwrites(net):
    net.forward = lambda x: net.backbone.first(x).mul_(0)
    with torch.no_grad():
        assert torch.equal(read(net, 'backbone.first', copy=True),
                           net.backbone.first(images()))
        assert not read(net, 'backbone.first').any()
