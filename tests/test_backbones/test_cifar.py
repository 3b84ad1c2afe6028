import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmkd_rl.backbones import (
    CifarDenseNet,
    CifarMobileNetV2,
    CifarRegNet,
    CifarResNet,
    CifarShuffleNetV2,
    CifarVGG,
    CifarWideResNet,
    PlainConvNet,
)
from mmkd_rl.backbones.cifar_shufflenetv2 import ShuffleBlock
from mmkd_rl.registry import MODELS


@dataclasses.dataclass
class Net:
    """A small network of each family, and properties of the family."""

    build: Callable
    stages: int = 3
    stem: tuple = ('conv1', 'bn1')
    tail: tuple = ()
    before: str = ''  # module before the last activation


NETS = {
    'resnet':
    Net(lambda **k: CifarResNet(depth=8, **k), before='layer3.0.relu2'),
    'wrn':
    Net(lambda **k: CifarWideResNet(depth=10, widen_factor=1, **k),
        stem=('conv1', ),
        tail=('bn1', ),
        before='relu'),
    'regnetx':
    Net(lambda **k: CifarRegNet(arch='regnetx_200mf', **k),
        stages=4,
        before='layer4.6.relu3'),
    'regnety':
    Net(lambda **k: CifarRegNet(arch='regnety_400mf', **k),
        stages=4,
        before='layer4.11.relu3'),
    'shufflenetv2':
    Net(lambda **k: CifarShuffleNetV2(width_mult=0.5, **k),
        tail=('conv2', 'bn2'),
        before='relu2'),
    'mobilenetv2':
    Net(lambda **k: CifarMobileNetV2(width_mult=0.25, **k),
        stages=4,
        tail=('conv2', 'bn2'),
        before='relu2'),
    'vgg':
    Net(lambda **k: CifarVGG(depth=8, **k),
        stages=5,
        stem=(),
        before='layer5.0.relu'),
    'densenet':
    Net(lambda **k: CifarDenseNet(depth=10, growth_rate=4, **k),
        stem=('conv1', ),
        tail=('bn1', ),
        before='relu'),
    'plain':
    Net(lambda **k: PlainConvNet([(1, 1), (2, ), dict(channels=(4, 4))],
                                 width=8, last_pool=False, **k),
        stem=(),
        before='layer3.2.relu'),
}
each_net = pytest.mark.parametrize('net', NETS.values(), ids=list(NETS))
resnet, wrn = NETS['resnet'].build, NETS['wrn'].build


def count(backbone):
    """Millions of (parameters, multiply-adds at 32x32), with 100 classes."""
    head = nn.Linear(backbone.out_channels[-1], 100)
    backbone.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head(backbone(torch.zeros(1, 3, 32, 32))[-1].mean((2, 3)))
    parameters = sum(
        p.numel() for m in (backbone, head) for p in m.parameters())
    return parameters / 1e6, counter.get_total_flops() / 2e6


@pytest.mark.parametrize(
    'build, printed_parameters, multiply_adds',
    [
        (lambda: CifarRegNet('regnety_400mf'), 5.8, 467.1),
        (lambda: CifarRegNet('regnetx_400mf'), 4.8, 466.2),
        (lambda: CifarResNet(32, width=4), 7.4, 1083.0),
        (lambda: CifarWideResNet(28, 4), 5.9, 845.6),
        (lambda: CifarRegNet('regnetx_200mf'), 2.4, 223.4),
        # not width 0.5, which in no interpretation has 2.4M parameters
        (lambda: CifarMobileNetV2(1.0), 2.4, 22.4),
        (lambda: CifarShuffleNetV2(1.0), 1.4, 44.5),
        (lambda: CifarResNet(56), 0.9, 125.8),
    ],
    ids=[
        'regnety-400mf', 'regnetx-400mf', 'resnet32x4', 'wrn28-4',
        'regnetx-200mf', 'mobilenetv2', 'shufflenetv2', 'resnet56'
    ])
def test_size_is_that_of_table_1(build, printed_parameters, multiply_adds):
    got_parameters, got_multiply_adds = count(build())
    # within 2 %; for small networks within the rounding to one decimal
    assert got_parameters == pytest.approx(
        printed_parameters, rel=0.02, abs=0.05)
    assert got_multiply_adds == pytest.approx(multiply_adds, abs=0.06)


@pytest.mark.parametrize(
    'build, parameters, multiply_adds',
    [
        # other networks of the literature; few have published multiply-adds
        (lambda: CifarResNet(20), 0.278, None),
        (lambda: CifarResNet(8, width=4), 1.23, None),
        (lambda: CifarWideResNet(16, 2), 0.703, None),
        (lambda: CifarWideResNet(40, 2), 2.255, None),
        (lambda: CifarMobileNetV2(0.5), 0.81, 6.5),
        (lambda: CifarVGG(8), 3.97, None),
        (lambda: CifarVGG(13), 9.46, None),
    ],
    ids=[
        'resnet20', 'resnet8x4', 'wrn16-2', 'wrn40-2', 'mobilenetv2-x0.5',
        'vgg8', 'vgg13'
    ])
def test_size_is_the_published_one(build, parameters, multiply_adds):
    got_parameters, got_multiply_adds = count(build())
    assert got_parameters == pytest.approx(parameters, rel=0.01)
    if multiply_adds is not None:
        assert got_multiply_adds == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize('net, channels, sizes', [
    (lambda o: CifarResNet(8, out_indices=o), (16, 32, 64), (32, 16, 8)),
    (lambda o: CifarResNet(8, width=4, out_indices=o),
     (64, 128, 256), (32, 16, 8)),
    (lambda o: CifarWideResNet(10, 2, out_indices=o),
     (32, 64, 128), (32, 16, 8)),
    (lambda o: CifarRegNet('regnetx_200mf', out_indices=o),
     (24, 56, 152, 368), (32, 32, 16, 8)),
    (lambda o: CifarShuffleNetV2(0.5, out_indices=o),
     (48, 96, 1024), (16, 8, 4)),
    (lambda o: CifarMobileNetV2(0.5, out_indices=o),
     (12, 16, 48, 1280), (16, 8, 4, 2)),
    (lambda o: CifarMobileNetV2(1.5, out_indices=o),
     (36, 48, 144, 1920), (16, 8, 4, 2)),
    (lambda o: CifarVGG(8, out_indices=o),
     (64, 128, 256, 512, 512), (32, 16, 8, 4, 4)),
])
def test_strides_and_channels(net, channels, sizes):
    images = torch.rand(2, 3, 32, 64)
    every = tuple(range(len(channels)))
    backbone = net(every)
    shapes = [tuple(x.shape) for x in backbone(images)]
    assert shapes == [(2, c, s, 2 * s) for c, s in zip(channels, sizes)]
    assert backbone.out_channels == channels
    # the default is the last one
    assert net(None).out_indices == every[-1:]
    # fewer outputs are the same outputs
    some = net(every[::2]).eval()
    some.load_state_dict(backbone.state_dict())
    for one, other in zip(some(images), backbone.eval()(images)[::2]):
        assert torch.equal(one, other)


def test_odd_sizes():
    images = torch.rand(2, 3, 36, 52)
    for build in (resnet, wrn):
        shapes = [
            tuple(x.shape[2:]) for x in build(out_indices=(0, 1, 2))(images)
        ]
        assert shapes == [(36, 52), (18, 26), (9, 13)]


@each_net
@pytest.mark.parametrize('pool', [2, 4])
def test_a_pooled_stem_multiplies_the_strides(net, pool):
    """The stages see maxima of the stem's output, of 3x3 values for each
    factor of 2, and outputs have the sizes of those of an image that is as
    many times smaller; weights and their names are the same."""
    every = tuple(range(net.stages))
    plain, pooled = net.build(out_indices=every), net.build(
        out_indices=every, stem_pool=pool)
    pooled.load_state_dict(plain.state_dict())
    plain.eval()
    pooled.eval()
    small, large = torch.rand(1, 3, 16, 24), torch.rand(
        1, 3, 16 * pool, 24 * pool)
    assert [x.shape for x in plain(small)] == [x.shape for x in pooled(large)]
    stem = pooled._forward_stem(large)
    if net.stem:
        # Position i of the last pooling sees values within pool - 1 of
        # pool * i.
        reach = pool - 1
        padded = nn.functional.pad(
            stem, (reach, reach, reach, reach), value=-torch.inf)
        size = 2 * reach + 1
        expected = padded.unfold(2, size, pool).unfold(3, size, pool).amax(
            (-2, -1))
    else:  # means of the images
        expected = stem.unflatten(3, (-1, pool)).unflatten(2, (-1, pool)).mean(
            (3, 5))
    seen = []
    pooled.layer1.register_forward_pre_hook(lambda _, args: seen.append(*args))
    pooled(large)
    torch.testing.assert_close(seen[0], expected)


def test_odd_sizes_of_a_pooled_stem():
    """Levels of a pyramid halve their sizes, rounded up."""
    net = CifarResNet(8, stem_pool=4, out_indices=(0, 1, 2))
    assert [tuple(x.shape[2:]) for x in net(torch.rand(2, 3, 37, 50))] == [
        (10, 13), (5, 7), (3, 4)]


@each_net
def test_stages_can_be_tapped(net):
    backbone = net.build(out_indices=range(net.stages))
    tapped = []
    for i in range(net.stages):
        backbone.get_submodule(f'layer{i + 1}').register_forward_hook(
            lambda module, args, output: tapped.append(output))
    features = backbone(torch.rand(2, 3, 16, 16))
    assert len(tapped) == len(features)
    for one, other in zip(tapped[:-1], features[:-1]):
        assert torch.equal(one, other)


@each_net
def test_values_before_the_activation_can_be_tapped(net):
    backbone = net.build()
    tapped = []
    backbone.get_submodule(net.before).register_forward_hook(
        lambda module, args, output: tapped.append(args[0]))
    feature = backbone(torch.rand(2, 3, 16, 16))[-1]
    assert tapped[0].min() < 0
    assert torch.equal(tapped[0].relu(), feature)


def test_shuffle_block_mixes_both_halves():
    torch.manual_seed(0)
    block = ShuffleBlock(8, 8, 1, dict(type='BN'), dict(type='ReLU')).eval()
    x = torch.rand(1, 8, 4, 4)
    out = block(x)
    # even channels: the half that is passed on; odd: the half that is changed
    assert torch.equal(out[:, ::2], x[:, :4])
    assert torch.equal(out[:, 1::2], block.branch2(x[:, 4:]))


def test_an_inverted_residual_adds_its_input_where_it_can():
    block = CifarMobileNetV2(0.25).layer1
    shapes = [b.adds_input for b in block]
    assert shapes == [False, False, True]
    x = torch.rand(2, 6, 4, 4)
    nn.init.zeros_(block[2].bn3.weight)
    assert torch.equal(block[2](x), x)


def test_squeeze_and_excitation_scales_channels():
    torch.manual_seed(0)
    block = CifarRegNet('regnety_400mf').layer1[0].eval()
    x = torch.rand(2, 64, 4, 4)
    y = block.relu2(block.bn2(block.conv2(
        block.relu1(block.bn1(block.conv1(x))))))
    scale = block.se(y) / y.where(y != 0, torch.ones(()))
    mean = y.mean((2, 3))
    se = block.se
    want = se.fc2(se.fc1(mean[..., None, None]).relu()).sigmoid()
    # a fourth of the block's input channels, not of its width
    assert se.fc1.out_channels == 16
    torch.testing.assert_close(
        scale[y != 0], want.expand_as(y)[y != 0], rtol=1e-4, atol=1e-5)


@each_net
@pytest.mark.parametrize('frozen', ['none', 'stem', 'some', 'all'])
def test_frozen_stages_stay_frozen(net, frozen):
    torch.manual_seed(0)
    number = dict(none=-1, stem=0, some=2, all=net.stages)[frozen]
    backbone = net.build(frozen_stages=number).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    out = backbone(torch.rand(4, 3, 16, 16))[0]
    trained = [p for p in backbone.parameters() if p.requires_grad]
    if trained:
        (out * torch.randn_like(out)).sum().backward()
        torch.optim.SGD(trained, lr=1.).step()
    still = {*net.stem} if number >= 0 else set()
    still |= {f'layer{i + 1}' for i in range(number)}
    if number == net.stages:
        still |= {*net.tail}
    for name, value in backbone.state_dict().items():
        if name.endswith('num_batches_tracked'):
            changed = bool(value > 0)
        elif name.endswith('conv.bias'):
            continue  # VGG's biases, which the next norm cancels
        else:
            changed = not torch.equal(value, before[name])
        assert changed != (name.split('.')[0] in still), name


@each_net
def test_norm_eval_keeps_statistics(net):
    backbone = net.build(norm_eval=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(m.training for m in norms)
    backbone(torch.rand(2, 3, 16, 16))
    assert all(int(m.num_batches_tracked) == 0 for m in norms)
    assert all(p.requires_grad for p in backbone.parameters())


@each_net
@pytest.mark.parametrize('option', ['with_cp', 'channels_last'])
def test_options_change_no_number(net, option):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 16, 16).double()
    plain = net.build().double()
    other = net.build(**{option: True}).double()
    other.load_state_dict(plain.state_dict())
    for backbone in (plain, other):
        backbone(images)[0].square().sum().backward()
    for p, q in zip(plain.parameters(), other.parameters()):
        torch.testing.assert_close(p.grad, q.grad)


def test_dropout_is_between_the_convolutions():
    backbone = wrn(dropout=0.5)
    images = torch.rand(2, 3, 8, 8)
    assert not torch.equal(backbone(images)[0], backbone(images)[0])
    backbone.eval()
    assert torch.equal(backbone(images)[0], backbone(images)[0])


@each_net
@pytest.mark.parametrize('norm_cfg', [
    dict(type='GN', num_groups=2),
    dict(type='BN', requires_grad=False),
])
def test_other_norms(net, norm_cfg):
    backbone = net.build(norm_cfg=norm_cfg)
    backbone.init_weights()
    assert torch.isfinite(backbone(torch.rand(2, 3, 16, 16))[0]).all()


@each_net
def test_other_activation(net):
    backbone = net.build(act_cfg=dict(type='GELU'))
    kinds = {type(m) for n, m in backbone.named_modules() if '.se' not in n}
    assert nn.GELU in kinds and nn.ReLU not in kinds


@pytest.mark.parametrize('net, names', [
    ('resnet', 'conv1.weight layer2.0.bn1.running_mean '
     'layer2.0.downsample.0.weight layer2.0.downsample.1.bias'),
    ('wrn', 'conv1.weight layer1.0.conv2.weight layer2.0.downsample.weight '
     'bn1.weight'),
    ('regnety', 'conv1.weight bn1.bias layer1.0.conv3.weight '
     'layer4.11.bn3.weight layer2.1.se.fc1.bias layer3.0.downsample.1.weight'),
    ('shufflenetv2', 'conv1.weight layer1.0.branch1.0.weight '
     'layer1.0.branch1.3.running_var layer3.3.branch2.5.weight conv2.weight '
     'bn2.weight'),
    ('mobilenetv2', 'conv1.weight layer1.2.conv3.weight '
     'layer4.3.bn3.weight conv2.weight bn2.weight'),
    ('vgg', 'layer1.0.conv.weight layer1.0.conv.bias layer5.0.bn.weight'),
])
def test_names_in_checkpoints_do_not_change(net, names):
    assert set(names.split()) <= NETS[net].build().state_dict().keys()


@pytest.mark.parametrize('depth', [7, 18, 2, 0, -4, 20.0, '20', True])
def test_a_bad_depth_says_which_work(depth):
    with pytest.raises(ValueError, match=r'6n \+ 2.*8, 14, 20') as error:
        CifarResNet(depth)
    assert repr(depth) in str(error.value)


@pytest.mark.parametrize('depth', [8, 4, 20])
def test_a_bad_wide_depth_says_which_work(depth):
    with pytest.raises(ValueError, match=r'6n \+ 4.*10, 16, 22, 28'):
        CifarWideResNet(depth, 2)


@pytest.mark.parametrize('kwargs, message', [
    (dict(width=3), r'width must be one of \[1, 4\], got 3'),
    (dict(out_indices=(3, )), r'out_indices.*\(0, 1, 2\).*\(3,\)'),
    (dict(out_indices=()), 'out_indices'),
    (dict(frozen_stages=4), 'frozen_stages.*got 4'),
    (dict(stem_pool=3), r'stem_pool must be one of \(1, 2, 4\), got 3'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CifarResNet(8, **kwargs)


@pytest.mark.parametrize('kwargs, message', [
    (dict(widen_factor=0), 'widen_factor.*got 0'),
    (dict(widen_factor=1.5), 'widen_factor.*got 1.5'),
    (dict(widen_factor=1, dropout=1.0), r'dropout.*got 1\.0'),
])
def test_bad_wide_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CifarWideResNet(10, **kwargs)


@pytest.mark.parametrize('build, message', [
    (lambda: CifarRegNet('regnetz'), "regnetx_200mf.*regnety_400mf.*'regnetz'"
     ),
    (lambda: CifarRegNet(['regnetx_200mf']), 'arch must be one of'),
    (lambda: CifarRegNet('regnetx_200mf', out_indices=(4, )),
     r'out_indices.*\(0, 1, 2, 3\)'),
    (lambda: CifarShuffleNetV2(0.75), r'0\.5, 1\.0, 1\.5, 2\.0.*got 0\.75'),
    (lambda: CifarShuffleNetV2('1.0'), r"one of.*got '1\.0'"),
    (lambda: CifarMobileNetV2(0), '>= 1/16.*got 0'),
    (lambda: CifarMobileNetV2('0.5'), r"width_mult.*got '0\.5'"),
    (lambda: CifarVGG(12), r'8, 11, 13, 16, 19.*got 12'),
    (lambda: CifarVGG(8, frozen_stages=6), 'frozen_stages.*1 to 5.*got 6'),
])
def test_bad_arguments_say_what_exists(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('cfg', [
    dict(type='mmkd_rl.CifarResNet', depth=8, out_indices=(1, 2)),
    dict(type='mmkd_rl.CifarWideResNet', depth=10, widen_factor=1),
    dict(type='mmkd_rl.CifarRegNet', arch='regnetx_200mf'),
    dict(type='mmkd_rl.CifarShuffleNetV2', width_mult=1.5),
    dict(type='mmkd_rl.CifarMobileNetV2', width_mult=0.5),
    dict(type='mmkd_rl.CifarVGG', depth=11),
])
def test_built_by_the_name_that_other_packages_use(cfg):
    from mmpretrain.registry import MODELS as PRETRAIN_MODELS
    key = list(cfg)[1]
    for registry in (MODELS, PRETRAIN_MODELS):
        assert getattr(registry.build(dict(cfg)), key) == cfg[key]
