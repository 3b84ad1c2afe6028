"""KnowledgeFlowBackbone as part of a module: copies, devices, checkpoints, and
features that a distiller hands over."""

import copy

import pytest
import torch

import mmkd_rl.backbones  # noqa: F401
from mmkd_rl.flow import flow_of
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.normalization import Normalization

from .parts import (
    CIFAR,
    RESNET,
    build,
    images_of,
    roots,
    step,
    teacher,
)


@pytest.fixture(autouse=True, scope='module')
def packages():
    import mmpretrain.models  # noqa: F401


@pytest.fixture(scope='module')
def images():
    return images_of(32, 64)


def test_teachers_are_in_no_tree():
    backbone = build(teachers=[teacher(), teacher('b', RESNET)])
    plain = MODELS.build(CIFAR)
    flow = flow_of(backbone)
    added = set(backbone.state_dict()) - set(plain.state_dict())
    assert added == {'knowledge_flow.active'} | {
        f'knowledge_flow.fusions.{i}.{n}' for i, f in enumerate(flow.fusions)
        for n in ('logits', *(f'transforms.{k}.weight' for k in
                              range(len(f.candidates))))}
    theirs = {id(p) for network in roots(flow)
              for p in network.parameters()}
    assert theirs and not theirs & {id(p) for p in backbone.parameters()}
    theirs = {id(m) for network in roots(flow)
              for m in network.modules()}
    assert not theirs & {id(m) for m in backbone.modules()}


def test_a_copy_is_its_own_and_shares_teachers(images):
    backbone = build(teachers=[teacher(), teacher('b')])
    step(backbone, images[32])  # with stored features of a batch
    backbone.zero_grad()
    twin = copy.deepcopy(backbone)
    flow, other = flow_of(backbone), flow_of(twin)
    assert other is not flow and other.pool is flow.pool
    batch = images[32].clone()
    assert torch.equal(step(backbone, batch)[0], step(twin, batch)[0])

    # Training or settings of one do not change the other.
    for p in twin.parameters():
        p.data.zero_()
    assert any(p.any() for p in flow.parameters())
    other.retire(['a'])
    other.strength = 0.
    assert flow.active_teachers == ('a', 'b') and flow.strength == 1
    # Each uses its own weights: all matrices of the copy are zero.
    twin.conv1.weight.data.normal_()
    other.strength = 1.
    before = backbone(batch)[0]
    twin(batch)
    assert torch.equal(backbone(batch)[0], before)
    # Moving the copy to a device does not move the teachers.
    twin.double()
    assert next(roots(flow)[0].parameters()).dtype == torch.float32
    backbone(batch)


def test_teachers_move_along(images):
    backbone = build(teachers=[teacher(normalization=dict(
        mean=[1, 2, 3], std=[2, 3, 4]))])
    flow = flow_of(backbone)
    flow.set_normalization(Normalization((0., 0., 0.), (1., 1., 1.), False))
    step(backbone.double(), images[32].double())
    assert flow.fusions[0].transforms[0].weight.grad.dtype == torch.float64
    assert {t.dtype for n in roots(flow)
            for t in n.parameters()} == {torch.float64}
    backbone.float()
    step(backbone.to(torch.bfloat16), images[32].bfloat16())


def test_mixed_precision(images):
    backbone = build(teachers=[teacher(), teacher('b', RESNET)])
    with torch.autocast('cpu', torch.bfloat16):
        step(backbone, images[32])
    for n, p in backbone.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), n


def test_a_checkpoint_says_who_has_left(images):
    names = ['a', 'b', 'c']
    backbone, again = (build(teachers=[teacher(n) for n in names])
                       for _ in range(2))
    for p in flow_of(backbone).parameters():
        p.data.normal_()
    flow_of(backbone).retire(['b'])
    again.load_state_dict(backbone.state_dict())
    flow, old = flow_of(again), flow_of(backbone)
    assert flow.active_teachers == ('a', 'c') and not flow.independent
    for p, q in zip(flow.weights(), old.weights()):
        assert torch.equal(p, q) and p[2] == 0
    # A retired teacher takes part again after loading an older checkpoint.
    fresh = build(teachers=[teacher(n) for n in names])
    again.load_state_dict(fresh.state_dict())
    assert flow.active_teachers == ('a', 'b', 'c')


def test_who_has_left_is_not_run(images):
    backbone = build(teachers=[teacher(), teacher('b')])
    flow, runs = flow_of(backbone), []
    for name, network in zip('ab', roots(flow)):
        network.register_forward_hook(lambda *_, name=name: runs.append(name))
    step(backbone, images[32].clone())
    flow.retire(['a', 'a'])
    step(backbone, images[32].clone())
    flow.retire(['a', 'b'])
    step(backbone, images[32].clone())
    assert runs == ['a', 'b', 'b']
    assert flow.independent and flow.active_teachers == ()
    assert flow.dependency() == 0


def test_what_is_lent_is_mixed_in_once_in_training(images):
    """Lent features are used once; afterwards, and in validation, teachers are
    run on the student's images."""
    backbone = build()
    flow, runs = flow_of(backbone), []
    roots(flow)[0].register_forward_hook(
        lambda m, args, out: runs.append(args[0]))
    other = images[32].flip(0)
    want, own = backbone(images[32])[0], backbone(other)[0]
    assert not torch.equal(want, own)
    features = flow.pool.inner(images[32], [True])
    shifted = ((features[0][0] + 1, *features[0][1:]), )
    runs.clear()

    def mixed_with(lent, batch):
        flow.lend(lent)
        return backbone(batch)[0]

    assert torch.equal(mixed_with(features, images[32]), want)
    assert not torch.equal(mixed_with(shifted, images[32]), want)
    assert not runs
    assert torch.equal(backbone(other)[0], own) and runs[0] is other

    backbone.eval()
    flow.fuse_in_eval = True
    want = backbone(other)[0]
    assert torch.equal(mixed_with(features, other), want)
    assert [r is other for r in runs] == [True] * 3


def test_what_is_lent_is_forgotten_and_not_copied(images):
    backbone = build()
    flow, runs = flow_of(backbone), []
    roots(flow)[0].register_forward_hook(
        lambda m, args, out: runs.append(1))
    flow.lend(flow.pool.inner(images[32], [True]))
    twin = copy.deepcopy(backbone)
    runs.clear()
    twin(images[32])
    assert len(runs) == 1
    flow.forget()
    backbone(images[32])
    assert len(runs) == 2


def test_weak_teachers_are_weak_everywhere():
    backbone = build(teachers=[teacher(), teacher('b')])
    flow = flow_of(backbone)
    for fusion in flow.fusions:
        fusion.logits.data = torch.tensor([0., -9., -9.])
    assert flow.weak_teachers(.01) == ['a', 'b']
    flow.fusions[0].logits.data[2] = 0.  # b has weight in one layer
    assert flow.weak_teachers(.01) == ['a']
    assert flow.weak_teachers(1e-9) == []
    flow.retire(['a'])
    assert flow.weak_teachers(.01) == []


def test_names_and_weights():
    flow = flow_of(build(teachers=[teacher(), teacher('b')],
                         student_weight=.5))
    assert flow.layers == ('layer1.0', 'layer2.0', 'layer3.0')
    assert flow.candidates[1] == ('student', 'a:layer2.0', 'b:layer2.0')
    assert flow.teacher_names == flow.active_teachers == ('a', 'b')
    for row in flow.weights():
        torch.testing.assert_close(row, torch.tensor([.5, .25, .25]))
    torch.testing.assert_close(flow.dependency(), torch.tensor(2.).log())
    lines = flow.table().splitlines()
    assert len(lines) == 1 + 6
    assert lines[1].split() == ['layer1.0', 'before', 'layer1.0.relu2',
                                '16x64x64', 'a:layer1.0', '16x64x64', '256']
