import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmkd_rl.backbones import CifarResNet, CifarWideResNet
from mmkd_rl.registry import MODELS


def resnet(**kwargs):
    return CifarResNet(depth=8, **kwargs)


def wrn(**kwargs):
    return CifarWideResNet(depth=10, widen_factor=1, **kwargs)


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
    'build, parameters, multiply_adds',
    [
        # MTKD-RL, Table 1
        (lambda: CifarResNet(56), 0.86, 125.8),
        (lambda: CifarResNet(32, width=4), 7.43, 1083.0),
        (lambda: CifarWideResNet(28, 4), 5.87, 845.6),
        # the literature's other networks; no published multiply-adds
        (lambda: CifarResNet(20), 0.278, None),
        (lambda: CifarResNet(8, width=4), 1.23, None),
        (lambda: CifarWideResNet(16, 2), 0.703, None),
        (lambda: CifarWideResNet(40, 2), 2.255, None),
    ],
    ids=[
        'resnet56', 'resnet32x4', 'wrn28-4', 'resnet20', 'resnet8x4',
        'wrn16-2', 'wrn40-2'
    ])
def test_size_is_the_published_one(build, parameters, multiply_adds):
    got_parameters, got_multiply_adds = count(build())
    assert got_parameters == pytest.approx(parameters, rel=0.01)
    if multiply_adds is not None:
        assert got_multiply_adds == pytest.approx(multiply_adds, rel=0.001)


@pytest.mark.parametrize('net, channels', [
    (lambda o: CifarResNet(8, out_indices=o), (16, 32, 64)),
    (lambda o: CifarResNet(8, width=4, out_indices=o), (64, 128, 256)),
    (lambda o: CifarWideResNet(10, 2, out_indices=o), (32, 64, 128)),
])
def test_strides_and_channels(net, channels):
    images = torch.rand(2, 3, 36, 52)
    backbone = net((0, 1, 2))
    shapes = [tuple(x.shape) for x in backbone(images)]
    assert shapes == [(2, channels[0], 36, 52), (2, channels[1], 18, 26),
                      (2, channels[2], 9, 13)]
    assert backbone.out_channels == channels
    # fewer outputs are the same outputs
    some = net((0, 2)).eval()
    some.load_state_dict(backbone.state_dict())
    for one, other in zip(some(images), backbone.eval()(images)[::2]):
        assert torch.equal(one, other)


def test_the_last_output_is_behind_the_activation():
    for build in (resnet, wrn):
        assert build()(torch.rand(2, 3, 8, 8))[-1].min() >= 0


@pytest.mark.parametrize('build, before', [(resnet, 'layer3.0.relu2'),
                                           (wrn, 'relu')])
def test_values_before_the_activation_can_be_tapped(build, before):
    backbone = build()
    tapped = []
    backbone.get_submodule(before).register_forward_hook(
        lambda module, args, output: tapped.append(args[0]))
    feature = backbone(torch.rand(2, 3, 8, 8))[-1]
    assert tapped[0].min() < 0
    assert torch.equal(tapped[0].relu(), feature)


@pytest.mark.parametrize('build', [resnet, wrn])
@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 3])
def test_frozen_stages_stay_frozen(build, frozen):
    torch.manual_seed(0)
    backbone = build(frozen_stages=frozen, out_indices=(2, )).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.zero_grad()
    out = backbone(torch.rand(4, 3, 8, 8))[0]
    trained = [p for p in backbone.parameters() if p.requires_grad]
    if trained:
        out.square().mean().backward()
        torch.optim.SGD(trained, lr=1.).step()
    stem = ('conv1', 'bn1') if build is resnet else ('conv1', )
    still = {*stem} if frozen >= 0 else set()
    still |= {f'layer{i + 1}' for i in range(frozen)}
    if build is wrn and frozen == 3:
        still.add('bn1')
    for name, value in backbone.state_dict().items():
        if name.endswith('num_batches_tracked'):
            changed = bool(value > 0)
        else:
            changed = not torch.equal(value, before[name])
        part = name.split('.')[0]
        assert changed != (part in still), name


@pytest.mark.parametrize('build', [resnet, wrn])
def test_norm_eval_keeps_statistics(build):
    backbone = build(norm_eval=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(m.training for m in norms)
    backbone(torch.rand(2, 3, 8, 8))
    assert all(int(m.num_batches_tracked) == 0 for m in norms)
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize('build', [resnet, wrn])
@pytest.mark.parametrize('option', ['with_cp', 'channels_last'])
def test_options_change_no_number(build, option):
    images = torch.rand(2, 3, 8, 8).double()
    plain, other = build().double(), build(**{option: True}).double()
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


@pytest.mark.parametrize('norm_cfg', [
    dict(type='GN', num_groups=4),
    dict(type='BN', requires_grad=False),
])
def test_other_norms(norm_cfg):
    for build in (resnet, wrn):
        backbone = build(norm_cfg=norm_cfg)
        backbone.init_weights()
        assert torch.isfinite(backbone(torch.rand(2, 3, 8, 8))[0]).all()


def test_other_activation():
    backbone = resnet(act_cfg=dict(type='GELU'))
    assert isinstance(backbone.layer2[0].relu1, nn.GELU)


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


@pytest.mark.parametrize('cfg', [
    dict(type='mmkd_rl.CifarResNet', depth=8, out_indices=(1, 2)),
    dict(type='mmkd_rl.CifarWideResNet', depth=10, widen_factor=1),
])
def test_built_by_the_name_that_other_packages_use(cfg):
    from mmpretrain.registry import MODELS as PRETRAIN_MODELS
    for registry in (MODELS, PRETRAIN_MODELS):
        assert registry.build(dict(cfg)).depth == cfg['depth']
