"""KnowledgeFlowBackbone with the smallest variants of real backbones.

For all of them: without teachers, outputs and gradients equal those of the
plain backbone bit for bit; with teachers, every Q and every w learns, and no
teacher does.
"""

import copy
import math

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmkd_rl.backbones  # noqa: F401
from mmkd_rl.flow import flow_of
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import BackboneTask
from mmkd_rl.teachers import TeacherPool
from mmkd_rl.teachers.normalization import Normalization

from .parts import (
    CIFAR,
    RESNET,
    build,
    images_of,
    roots,
    step,
    teacher,
    tensors,
)

VIT = dict(
    type='mmpretrain.VisionTransformer', img_size=32, patch_size=8,
    arch=dict(embed_dims=8, num_layers=3, num_heads=1,
              feedforward_channels=8))
# name: (config, side of the images)
STUDENTS = {
    'ResNet': (RESNET, 64),
    'ResNeXt': (dict(type='mmpretrain.ResNeXt', depth=50, groups=4,
                     width_per_group=4, stem_channels=8, base_channels=8),
                64),
    'RegNet': (dict(type='mmpretrain.RegNet', arch='regnetx_400mf'), 64),
    'MobileNetV2': (dict(type='mmpretrain.MobileNetV2', widen_factor=.25), 64),
    'ShuffleNetV2': (dict(type='mmpretrain.ShuffleNetV2', widen_factor=.5),
                     64),
    'ConvNeXt': (dict(type='mmpretrain.ConvNeXt', arch=dict(
        depths=[1] * 4, channels=[8] * 4)), 64),
    'Swin': (dict(type='mmpretrain.SwinTransformer', window_size=2,
                  pad_small_map=True, arch=dict(
                      embed_dims=8, depths=[2, 1, 1, 1],
                      num_heads=[1] * 4)), 64),
    'ViT': (VIT, 32),
    'ViT patches': (dict(VIT, out_type='featmap'), 32),
    'CifarResNet': (CIFAR, 32),
    'MLP': (dict(type='mmkd_rl.MLP', in_shape=(3, 32, 32), hidden=(9, 7),
                 dropout=.1), 32),
    'PlainConvNet': (dict(type='mmkd_rl.PlainConvNet', width=4,
                          stages=[(1, ), (2, ), (4, )]), 32),
}


@pytest.fixture(autouse=True, scope='module')
def packages():
    import mmpretrain.models  # noqa: F401


@pytest.fixture(scope='module')
def images():
    return images_of(32, 64)


def plain_of(config, backbone):
    """The plain backbone with the same weights."""
    plain = MODELS.build(dict(config))
    plain.load_state_dict({
        n: t for n, t in backbone.state_dict().items()
        if not n.startswith('knowledge_flow.')})
    return plain


def gradients(module):
    return {n: p.grad for n, p in module.named_parameters()
            if not n.startswith('knowledge_flow.')}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name] is None) == (b[name] is None), name
        if a[name] is not None:
            assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize('name', STUDENTS)
def test_any_backbone_learns_and_ends_as_itself(name, images):
    config, side = STUDENTS[name]
    batch = images[side]
    backbone = build(config, [teacher(), teacher('b', dict(
        type='mmkd_rl.PlainConvNet', width=2, stages=[(1, ), (1, )]))])
    flow = flow_of(backbone)
    assert isinstance(backbone, BaseModule) and flow.fusions
    plain = plain_of(config, backbone)
    assert type(plain) is type(backbone)

    # With teachers the output differs, and all parts learn.
    mixed = step(backbone, batch)
    alone = tensors(step(copy.deepcopy(plain), batch))
    assert [t.shape for t in mixed] == [t.shape for t in alone]
    assert not any(torch.equal(a, b) for a, b in zip(mixed, alone))
    for n, p in backbone.named_parameters():
        # The last layer outputs only the class token, or only the others.
        last = f'knowledge_flow.fusions.{len(flow.fusions) - 1}.'
        if n.startswith(last) and n.endswith({
                'ViT': '.weight', 'ViT patches': '.extra_weight'}.get(
                    name, ' ')):
            continue
        assert p.grad is not None and p.grad.isfinite().all(), n
        if n.startswith('knowledge_flow.'):
            assert p.grad.any(), n
    for network in roots(flow):
        assert not any(p.requires_grad or p.grad is not None
                       for p in network.parameters())
        assert not network.training

    # Without teachers it is the plain backbone bit for bit, forwards and
    # backwards.
    backbone.zero_grad()
    backbone.load_state_dict(plain.state_dict(), strict=False)  # batch norms
    flow.retire(flow.teacher_names)
    for a, b in zip(step(backbone, batch), step(plain, batch)):
        assert torch.equal(a, b)
    assert_same(gradients(backbone), gradients(plain))
    assert all(p.grad is None for p in flow.parameters())
    # The state dict under the plain names has changed with it.
    assert_same(
        {n: t for n, t in backbone.state_dict().items()
         if not n.startswith('knowledge_flow.')}, dict(plain.state_dict()))


def test_strength_zero_is_the_student_alone(images):
    backbone = build(strength=0.)
    plain = plain_of(CIFAR, backbone)
    for a, b in zip(step(backbone, images[32]), step(plain, images[32])):
        assert torch.equal(a, b)
    assert_same(gradients(backbone), gradients(plain))


def test_the_student_predicts_alone_unless_told_otherwise(images):
    backbone = build()
    plain = plain_of(CIFAR, backbone).eval()
    backbone.eval()
    alone = plain(images[32])[0]
    assert torch.equal(backbone(images[32])[0], alone)
    flow_of(backbone).fuse_in_eval = True
    assert not torch.equal(backbone(images[32])[0], alone)


def test_mixture_by_hand(images):
    """h = relu(p_0 z_0 + p_1 Q z_1): the last block is computed by hand, on
    images that are not square."""
    batch = torch.randn(2, 3, 32, 48)
    backbone = build(
        links=[dict(student='layer3', teachers=dict(a='layer3'))],
        student_weight=.3)
    flow = flow_of(backbone)
    z, other = {}, {}
    plain = plain_of(CIFAR, backbone)
    plain.layer3[0].relu2.register_forward_pre_hook(
        lambda m, args: z.update(z=args[0]))
    plain.train()(batch)
    network, = roots(flow)
    handle = network.layer3[0].relu2.register_forward_pre_hook(
        lambda m, args: other.update(z=args[0]))
    network(batch)
    handle.remove()
    q = flow.fusions[0].transforms[0].weight
    want = .3 * z['z'] + .7 * torch.einsum('de,behw->bdhw', q, other['z'])
    torch.testing.assert_close(backbone(batch)[0], want.relu(), rtol=1e-4,
                               atol=1e-5)


def test_at_the_output_by_option(images):
    plain = MODELS.build(CIFAR)
    backbone = build(fuse='output', links=[
        dict(student='layer3', teachers=dict(a='layer3'))],
        student_weight=.3)
    backbone.load_state_dict(plain.state_dict(), strict=False)
    flow = flow_of(backbone)
    network, = roots(flow)
    q = flow.fusions[0].transforms[0].weight
    with torch.no_grad():
        want = .3 * plain.train()(images[32])[0] + .7 * torch.einsum(
            'de,behw->bdhw', q, network(images[32])[0])
    torch.testing.assert_close(backbone(images[32])[0], want, rtol=1e-4,
                               atol=1e-5)
    assert 'at its output' in flow.table()


def test_handover_is_what_the_layers_are_from_what_is_passed_on(images):
    backbone = build()
    flow = flow_of(backbone)
    backbone(images[32])
    assert flow.handover() == 0  # not requested
    flow.watch_gaps()
    pairs = []
    for fusion in flow.fusions:
        fusion.register_forward_hook(
            lambda m, args, out: pairs.append((args[0], out)))
    backbone(images[32])
    assert flow.handover() == 0  # no trust in any teacher
    for i, fusion in enumerate(flow.fusions):
        fusion.logits.data[0] = -i / 4
    pairs.clear()
    backbone(images[32])
    want = torch.stack([
        (2 - 4 / (1 + math.exp(i / 4))) * (a - b).square().mean() / b.var(
            correction=0) for i, (a, b) in enumerate(pairs)]).mean()
    torch.testing.assert_close(flow.handover(), want)
    flow.handover().backward()
    assert backbone.conv1.weight.grad.any()
    last = flow.fusions[-1]
    assert last.logits.grad is None and last.transforms[0].weight.grad is None
    copy.deepcopy(backbone)
    flow.retire(['a'])
    backbone(images[32])
    assert flow.handover() == 0


# ------------------------------------------- options in a backbone's config


@pytest.mark.parametrize('options', [
    dict(out_indices=(0, 2, 3)),
    dict(out_indices=(1, 3), frozen_stages=2, norm_eval=True),
    dict(frozen_stages=1)])
def test_options_of_the_backbone_go_on_working(options, images):
    config = dict(RESNET, **options)
    backbone = build(config)
    plain = plain_of(config, backbone)
    backbone.train(), plain.train()
    outputs = step(backbone, images[64])
    assert len(outputs) == len(options.get('out_indices', (3, )))
    for module in ('train', 'eval'):
        getattr(backbone, module)(), getattr(plain, module)()
        assert [m.training for m in plain.modules()] == [
            m.training for n, m in backbone.named_modules()
            if 'knowledge_flow' not in n]
    backbone.train(), plain.train()
    trained = {n for n, p in plain.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in backbone.named_parameters()
                       if p.requires_grad and 'knowledge_flow' not in n}
    frozen = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert not any(n.startswith('knowledge_flow') for n in frozen)
    assert set(frozen) == {n for n, _ in plain.named_parameters()} - trained
    if options.get('norm_eval'):
        assert not any(m.training for m in backbone.modules()
                       if isinstance(m, _BatchNorm))
    flow_of(backbone).retire(['a'])
    backbone.load_state_dict(plain.state_dict(), strict=False)
    for a, b in zip(step(backbone, images[64]), step(plain, images[64])):
        assert torch.equal(a, b)


def test_pretrained_weights_are_loaded_as_without_a_wrapper(tmp_path):
    plain = MODELS.build(CIFAR)
    for p in plain.parameters():
        p.data.normal_()
    torch.save(dict(state_dict={f'backbone.{n}': t for n, t in
                                plain.state_dict().items()}),
               tmp_path / 'whole.pth')
    backbone = build(dict(CIFAR, init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'whole.pth'),
        prefix='backbone.')))
    q = [p.clone() for p in flow_of(backbone).parameters()]
    backbone.init_weights()
    assert_same(dict(plain.state_dict()), {
        n: t for n, t in backbone.state_dict().items()
        if not n.startswith('knowledge_flow.')})
    assert all(map(torch.equal, q, flow_of(backbone).parameters()))


def test_init_cfg_of_all_convolutions_leaves_q_alone():
    backbone = build(dict(CIFAR, init_cfg=dict(
        type='Constant', val=7., layer=['Conv2d', 'Linear'])))
    q = [p.clone() for p in flow_of(backbone).parameters()]
    backbone.init_weights()
    assert backbone.conv1.weight.eq(7).all()
    assert all(map(torch.equal, q, flow_of(backbone).parameters()))


def test_layer_wise_learning_rates_find_their_layers():
    backbone = build(VIT)
    plain = MODELS.build(VIT)
    for name, _ in plain.named_parameters():
        assert backbone.get_layer_depth(name) == plain.get_layer_depth(name)
    depth, depths = backbone.get_layer_depth('knowledge_flow.fusions.0.logits')
    assert depth == depths - 1  # the full rate


# --------------------------------------------------- activation checkpoints


@pytest.mark.parametrize('config, side, links', [
    # Fusions are behind the recomputed part,
    (RESNET, 64, 'auto'),
    # inside it (in a block's first activation, and in its last convolution),
    (RESNET, 64, [
        dict(student=dict(path='layer1.0.relu', call=0),
             teachers=dict(a='layer1')),
        dict(student='layer3.1.conv2', teachers=dict(a=['layer2', 'layer3'])),
        dict(student='layer2', teachers=dict(a='layer1'))]),
    # with the other kind of recomputation,
    (CIFAR, 32, 'auto'),
    # and in networks of tokens.
    (STUDENTS['Swin'][0], 64, 'auto')])
def test_activation_checkpointing_changes_no_gradient(config, side, links,
                                                      images):
    backbone = build(config, links=links)
    again = build(dict(config, with_cp=True), links=links)
    again.load_state_dict(backbone.state_dict())
    flow_of(again)._pool = flow_of(backbone)._pool
    for a, b in zip(step(backbone, images[side]), step(again, images[side])):
        torch.testing.assert_close(a, b)
    for (name, p), q in zip(backbone.named_parameters(), again.parameters()):
        assert q.grad is not None, name
        scale = p.grad.abs().max().item()
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4,
                                   atol=1e-5 * scale + 1e-9, msg=name)


def test_a_stage_that_does_not_run_as_one_in_training_is_named(images):
    backbone = build(dict(CIFAR, with_cp=True), fuse='output', links=[
        dict(student='layer1', teachers=dict(a='layer1'))])
    with pytest.raises(RuntimeError, match="layer 'layer1' of the student.*"
                       'with_cp.*last block'):
        step(backbone, images[32])


# ----------------------------------------------------- in-place operations


def test_what_a_teacher_s_layer_gave_is_read_before_it_is_overwritten(images):
    """ReLUs and additions of a ResNet are in-place operations."""
    paths = ['bn1', 'layer1.0.bn1', 'layer1.0.bn2', 'layer1', 'layer2.0.conv1']
    backbone = build(CIFAR, [teacher(config=RESNET)], probe_size=64, links=[
        dict(student='layer1', teachers=dict(a=paths))])
    pool = flow_of(backbone).pool
    network, = roots(flow_of(backbone))
    for module in network.modules():  # else the branch starts at zero
        if isinstance(module, _BatchNorm):
            module.weight.data.normal_()
    read, seen = pool.inner(images[64], [True])[0], {}
    last = 'layer1.1.relu'  # of layer1: the input of its last activation

    def copy_of(path, what):
        seen.setdefault(path, []).append(what.clone())

    for path in paths:
        if path != 'layer1':
            network.get_submodule(path).register_forward_hook(
                lambda m, args, out, path=path: copy_of(path, out))
    network.get_submodule(last).register_forward_pre_hook(
        lambda m, args: copy_of('layer1', args[0]))
    with torch.no_grad():
        want = network(images[64])
    for path, feature in zip(paths, read):
        assert torch.equal(feature, seen[path][-1]), path
    assert all(feature.min() < 0 for feature in read)

    # The hooks do not change the teacher's outputs.
    assert torch.equal(want[0], network(images[64])[0])


def test_a_student_that_works_in_place_has_the_gradients_of_one_that_does_not(
        images):
    """The mixture is the input of an in-place ReLU."""
    links = [dict(student=dict(path='layer1.0.relu', call=0),
                  teachers=dict(a='layer1')),
             dict(student='layer2', teachers=dict(a='layer2')),
             dict(student='layer3.0.bn1', teachers=dict(a='layer2'))]
    backbone = build(RESNET, links=links)
    out_of_place = copy.deepcopy(backbone)
    flags = [m for m in out_of_place.modules() if getattr(m, 'inplace', False)]
    assert flags
    for module in flags:
        module.inplace = False
    step(backbone, images[64]), step(out_of_place, images[64])
    assert_same(gradients(backbone), gradients(out_of_place))


# ------------------------------------------------------- teachers' images


def test_teachers_of_another_size_and_normalisation(images):
    """The teacher gets images as in its training: here of 64x64, in BGR, in
    units of 1/255."""
    own = dict(mean=[.5, .5, .5], std=[.25, .25, .25], to_rgb=True)
    theirs = dict(mean=[0., 0., 0.], std=[1 / 255] * 3)
    backbone = build(teachers=[teacher(
        config=RESNET, normalization=theirs, input_size=(64, 48))])
    flow = flow_of(backbone)
    flow.set_normalization(Normalization.from_config(own, 'x'))
    seen = []
    roots(flow)[0].register_forward_pre_hook(
        lambda m, args: seen.append(args[0]))
    backbone(images[32])
    want = torch.nn.functional.interpolate(
        ((images[32] * .25 + .5) * 255).flip(1), (64, 48), mode='bilinear',
        antialias=True)
    torch.testing.assert_close(seen[0], want)


def test_layers_are_looked_at_on_images_that_suit_the_teachers():
    """Layers are found on images of 224 for a Swin teacher with windows of 7,
    and of 64 for the student."""
    swin = dict(type='mmpretrain.SwinTransformer',
                arch=dict(embed_dims=4, depths=[1] * 4, num_heads=[1] * 4))
    backbone = build(CIFAR, [teacher(config=swin)])
    assert '16x224x224' in flow_of(backbone).table()
    with pytest.raises(ValueError, match="teacher 'a' fails on images of.*64, "
                       r'64\).*input_size.*probe_size=SIDE'):
        build(CIFAR, [teacher(config=swin)], probe_size=64)
    build(CIFAR, [teacher(config=swin, input_size=224)], probe_size=64)


def test_a_first_convolution_of_neighbouring_pixels():
    """YOLOX' stem makes twelve channels of the image's three."""
    pytest.importorskip('mmdet')
    yolox = dict(type='mmdet.CSPDarknet', deepen_factor=.33,
                 widen_factor=.125)
    backbone = build(yolox, [teacher(config=yolox)])
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert [x.shape[2] for x in maps] == [8, 4, 2]


def test_one_channel():
    grey = dict(type='mmkd_rl.PlainConvNet', width=2, in_channels=1,
                stages=[(1, ), (1, )])
    backbone = build(grey, [teacher(config=grey)])
    step(backbone, torch.randn(1, 1, 12, 20))


# ------------------------------------------------------------- bad input


@pytest.mark.parametrize('options, error, says', [
    (dict(fuse='middle'), ValueError, "fuse must be .*got 'middle'"),
    (dict(student_weight=1.), ValueError, r'_weight.*\(0, 1\) or None, got 1'),
    (dict(student_weight=0), ValueError, r'_weight.*\(0, 1\) or None, got 0'),
    (dict(weight_gain=0), ValueError, 'weight_gain must be > 0, got 0'),
    (dict(student='ResNet'), TypeError, "student must be a dict, got 'Res"),
    (dict(student=dict(depth=8)), TypeError, 'a dict with a "type"'),
    (dict(student=dict(type='mmkd_rl.CifarResNt')), ValueError, 'CifarResNt'),
    (dict(teachers='distill'), TypeError, "each a dict or 'distiller', got"),
    (dict(teachers=[]), ValueError, 'at least one'),
    (dict(teachers=[teacher(), teacher()]), ValueError, 'names must differ'),
    (dict(teachers=[teacher('student')]), ValueError, "must not be 'student'"),
    (dict(teachers=[teacher('a:b')]), ValueError, "must not contain ':'"),
    (dict(probe_size='big'), ValueError, "probe_size must be.*got 'big'"),
    (dict(probe_size=(3, )), ValueError, 'probe_size must be'),
    (dict(probe_size=0), ValueError, 'probe_size must be'),
    (dict(probe_size=1.5), ValueError, 'probe_size must be'),
    (dict(student=dict(type='mmkd_rl.MLP'), probe_size=32), ValueError,
     r'student: MLP fails on images of shape \(2, .*probe_size'),
])
def test_messages(options, error, says):
    with pytest.raises(error, match=says):
        MODELS.build(dict(dict(
            type='mmkd_rl.KnowledgeFlowBackbone', student=CIFAR,
            teachers=[teacher()]), **options))


@MODELS.register_module(name='KnowledgeFlowTestSequential', force=True)
class Chain(nn.Sequential):

    def __init__(self):
        super().__init__(nn.Conv2d(3, 2, 1))


def test_a_sequential_would_run_what_is_added_to_it():
    with pytest.raises(TypeError, match='Chain is an nn.Sequential'):
        build(dict(type='mmkd_rl.KnowledgeFlowTestSequential'))


def test_training_without_a_schedule_is_refused(images):
    backbone = build(strength=None)
    with pytest.raises(RuntimeError, match='would never end alone; add custom'
                       '_hooks=.*KnowledgeFlowHook'):
        backbone(images[32])
    backbone.eval()(images[32])


def test_a_teacher_that_gives_nan_is_named(images):
    backbone = build()
    network, = roots(flow_of(backbone))
    network.conv1.weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"teachers \['a'\] gave NaN"):
        backbone(images[32])


def test_flow_of_needs_one():
    with pytest.raises(ValueError, match='CifarResNet has 0 backbones of typ'):
        flow_of(MODELS.build(CIFAR))
    with pytest.raises(ValueError, match='ModuleList has 2 backbones'):
        flow_of(nn.ModuleList([build(), build()]))
    backbone = build()
    assert flow_of(nn.ModuleList([backbone])) is backbone.knowledge_flow


def test_a_pool_copies_as_itself():
    pool = TeacherPool([teacher()], BackboneTask())
    assert copy.deepcopy(pool) is pool
