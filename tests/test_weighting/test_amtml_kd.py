"""AMTML-KD: its target is the teachers' mixture, with all gradients; its
relations are compared with loops."""

import copy
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.losses import (
    AngleRelationLoss,
    DistanceRelationLoss,
    DKDLoss,
)
from mmkd_rl.losses.kd import kd_divergence
from mmkd_rl.losses.relation import angles, distances
from mmkd_rl.records import Gaps, Output, TeacherWeights, Truth
from mmkd_rl.registry import MODELS, WEIGHTINGS, build
from tests.test_weighting.steps import check_training
from tests.toy import (
    World,
    context,
    distiller,
    output,
    random_batch,
    samples,
    spec,
    toy_teachers,
)

PLAIN = dict(distance_weight=0., angle_weight=0., regularization=0.)


def strategy(count=3, ctx=None, random=True, **cfg):
    torch.manual_seed(0)
    made = build(
        WEIGHTINGS,
        dict(type='AMTMLKD', **cfg),
        'model.weighting',
        context=ctx or context(count))
    if random:
        torch.nn.init.normal_(made.latent)
    return made


def added(made, batch, weights):
    """Losses that the strategy adds to those of the student."""
    return {
        term.name: term(batch.student, batch.teachers, batch.truth, weights)
        for term in made.mixture_terms()
    }


def divergences(z, teachers):
    """Divergences of KD, [B, M]."""
    return kd_divergence(
        z, torch.stack([t.logits[0] for t in teachers], 1), None, 4.)


def kd_batch(count=3, size=6, space=(), seed=0):
    """A batch with the gaps of KD, whose feature is a leaf tensor."""
    batch = random_batch(size, count, seed)
    torch.manual_seed(seed)
    z = torch.randn(size, 5, *space, requires_grad=True)
    f = torch.randn(size, 8, 2, 3, requires_grad=True)
    teachers = tuple(
        output(3 * torch.randn(size, 5, *space), torch.randn(size, 4))
        for _ in range(count))
    return random_batch(
        size,
        count,
        student=output(z, f),
        teachers=teachers,
        targets=batch.truth.targets,
        gaps=Gaps(divergences(z, teachers), None, None))


def reference_weights(made, feature):
    """softmax_m W^T (theta_m * u), in loops."""
    W = made.projection.detach().double().numpy()
    theta = made.latent.detach().double().numpy()
    rows = []
    for sample in feature.detach().double().numpy():
        u = [float(channel.max()) for channel in sample]
        a = [sum(W[d] * t[d] * u[d] for d in range(len(u))) for t in theta]
        total = sum(math.exp(v) for v in a)
        rows.append([math.exp(v) / total for v in a])
    return torch.tensor(rows)


@pytest.mark.parametrize('scale', ['unit', 'paper'])
@pytest.mark.parametrize('count', [2, 4])
def test_reference(count, scale):
    made, batch = strategy(count, scale=scale), kd_batch(count)
    weights = made(batch)
    expected = reference_weights(made, batch.student.features[0])
    torch.testing.assert_close(weights.logit, expected)
    torch.testing.assert_close(weights.feature, expected)
    torch.testing.assert_close(weights.logit.sum(1), torch.ones(6))
    assert weights.logit.requires_grad and not weights.feature.requires_grad
    assert (expected - 1 / count).abs().max() > .05


@pytest.mark.parametrize('space', [(), (2, 3)])
@pytest.mark.parametrize('count', [1, 2, 4])
def test_the_target_is_the_mixture_with_all_gradients(count, space):
    """alpha sum w D - alpha T^2 JSD is alpha T^2 KL(sum w p || p_S), and so
    are its gradients in the student's logits and feature, W and theta."""
    made = strategy(count, ctx=context(count, logit_weight=.7), **PLAIN)
    batch = kd_batch(count, space=space)
    leaves = [
        *batch.student.logits, *batch.student.features, made.projection,
        made.latent
    ]
    weights = made(batch)
    got = .7 * (weights.logit * batch.gaps.logit).sum(1).mean() + sum(
        added(made, batch, weights).values())

    u = batch.student.features[0].amax((2, 3))
    w = torch.stack([(made.projection * theta * u).sum(1)
                     for theta in made.latent], 1).softmax(1)
    expected = 0.
    for b in range(6):
        p = sum(w[b, m] * (t.logits[0][b] / 4).softmax(0)
                for m, t in enumerate(batch.teachers))
        log_q = (batch.student.logits[0][b] / 4).log_softmax(0)
        kl = (p * (p.log() - log_q)).sum(0)
        expected = expected + .7 * 16 * kl.mean() / 6
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(
            torch.autograd.grad(got, leaves),
            torch.autograd.grad(expected, leaves)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_feature_is_the_largest_of_valid_points():
    """u is the maximum of valid points, and 0 if all points are padding."""
    made, batch = strategy(), kd_batch()
    valid = torch.ones(6, 2, 3)
    valid[1, :, 2] = valid[5] = 0
    masked = Truth(batch.truth.targets, valid, valid.sum((1, 2)))
    f = batch.student.features[0].detach().clone()
    kept = f.clone()
    f[1, :, :, 2] += 9
    f[5] += 9
    kept[1, :, :, 2] = kept[1, :, :, 1]
    kept[5] = 0
    weights = made(
        replace(
            batch,
            student=Output((f.requires_grad_(), ), batch.student.logits),
            truth=masked)).logit
    torch.testing.assert_close(weights, reference_weights(made, kept))
    weights[:, 0].sum().backward()
    assert f.grad.isfinite().all() and not f.grad[5].any()
    assert not f.grad[1, :, :, 2].any() and f.grad[1].any()


def test_the_mixture_is_of_valid_points():
    """For dense logits with padding, and an image that is only padding."""
    made, batch = strategy(2, **PLAIN), kd_batch(2, space=(2, 3))
    valid = (torch.rand(6, 2, 3) > .4).float()
    valid[5] = 0
    masked = Truth(batch.truth.targets, valid, valid.sum((1, 2)))
    weights = made(batch)
    got = added(made, replace(batch, truth=masked), weights)['loss_mixture']
    w = weights.feature
    expected = 0.
    for b in range(5):
        points = valid[b].bool()
        p = [(t.logits[0][b] / 4).softmax(0)[:, points]
             for t in batch.teachers]
        h = [-(q * q.log()).sum(0).mean()
             for q in (*p, w[b, 0] * p[0] + w[b, 1] * p[1])]
        expected -= 16 * (h[2] - w[b, 0] * h[0] - w[b, 1] * h[1]) / 5
    torch.testing.assert_close(got.detach(), expected)


def test_another_logit_loss_integrates_losses():
    batch = kd_batch()
    made = strategy(ctx=context(terms=(DKDLoss(), )), **PLAIN)
    assert set(added(made, batch, made(batch))) == {'loss_latent'}
    assert 'loss_mixture' in added(strategy(), batch, made(batch))


def test_teachers_that_were_left_out_are_not_in_the_mixture():
    """The distiller may set weights to zero, even all of a sample."""
    made, batch = strategy(2, **PLAIN), kd_batch(2)
    w = torch.tensor([[1., 0.], [0., 0.], [.5, .5], [.25, .25]] + [[0., 1.]] *
                     2)
    got = added(made, batch, TeacherWeights(w, w))['loss_mixture']
    expected = 0.
    for b, total in ((2, 1.), (3, .5)):
        p = [(t.logits[0][b] / 4).softmax(0) for t in batch.teachers]
        h = [-(q * q.log()).sum() for q in (*p, (p[0] + p[1]) / 2)]
        expected -= 16 * total * (h[2] - (h[0] + h[1]) / 2) / 6
    torch.testing.assert_close(got, expected)


def test_identical_teachers_keep_equal_weights():
    """The loss does not depend on the weights, so they stay equal."""
    batch = kd_batch()
    same = random_batch(
        student=batch.student,
        teachers=(batch.teachers[0], ) * 3,
        gaps=Gaps(batch.gaps.logit[:, :1].expand(-1, 3), None, None))
    made = strategy(random=False, **PLAIN)
    weights = made(same)
    torch.testing.assert_close(weights.logit, torch.full((6, 3), 1 / 3))
    loss = (weights.logit * same.gaps.logit).sum(1).mean() + sum(
        added(made, same, weights).values())
    loss.backward()
    for p in made.parameters():
        torch.testing.assert_close(
            p.grad, torch.zeros_like(p), atol=1e-5, rtol=0)


def test_training_prefers_the_nearer_teacher():
    """The mixture closest to the student is the teacher that agrees."""
    z = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    teachers = tuple(output(t, torch.zeros(32, 4)) for t in (-z, z))
    batch = random_batch(
        32,
        2,
        student=output(z, torch.rand(32, 8, 1, 1)),
        teachers=teachers,
        gaps=Gaps(divergences(z, teachers), None, None))
    made = strategy(2, random=False, **PLAIN)
    optimizer = torch.optim.SGD(made.parameters(), lr=.5)
    for _ in range(50):
        weights = made(batch)
        loss = (weights.logit * batch.gaps.logit).sum(1).mean() + sum(
            added(made, batch, weights).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (made(batch).logit[:, 1] > .8).all()


def test_latent_is_the_papers_regulariser():
    made, batch = strategy(), kd_batch()
    got = added(made, batch, made(batch))['loss_latent']
    torch.testing.assert_close(
        got, .1 * (made.projection.square().sum() +
                   made.latent.square().sum()))


def reference_distances(x):
    d = [np.linalg.norm(a - b) for a, b in combinations(x, 2)]
    return np.array(d) / np.mean(d)


def reference_angles(x):
    out = []
    for j in range(len(x)):
        for i, k in combinations(range(len(x)), 2):
            if j not in (i, k):
                a, b = x[i] - x[j], x[k] - x[j]
                out.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return np.array(out)


def test_relations_are_as_in_loops():
    x = np.random.default_rng(0).normal(size=(6, 4))
    np.testing.assert_allclose(
        distances(torch.tensor(x)).numpy(), reference_distances(x))
    np.testing.assert_allclose(
        angles(torch.tensor(x)).numpy(), reference_angles(x))


def huber(a, b):
    d = np.abs(a - b)
    return np.where(d < 1, d**2 / 2, d - .5).mean()


def test_relation_losses_are_as_in_loops():
    made = strategy(distance_weight=3., angle_weight=2., relation_samples=4)
    batch = kd_batch()
    weights = made(batch)
    losses = added(made, batch, weights)
    w = weights.feature.double().mean(0).numpy()
    s = batch.student.features[0].mean((2, 3)).detach().double().numpy()
    t = [t.features[0].double().numpy() for t in batch.teachers]
    for name, relate, count, factor in (
        ('loss_distance', reference_distances, 6, 3.),
        ('loss_angle', reference_angles, 4, 2.)):
        target = sum(v * relate(x[:count]) for v, x in zip(w, t))
        assert losses[name].item() == pytest.approx(
            factor * huber(relate(s[:count]), target), rel=1e-4)
    # they train the student, not the weights
    (losses['loss_distance'] + losses['loss_angle']).backward()
    assert batch.student.features[0].grad.abs().max() > 0
    assert made.latent.grad is None and made.projection.grad is None


def test_relations_are_of_valid_points():
    """Values in the padding have no effect."""
    valid = torch.zeros(6, 4, 6)
    valid[:, :2] = 1
    valid[0] = 1
    where = Truth(None, valid, valid.sum((1, 2)))
    batch = kd_batch()
    weights = strategy()(batch)
    for term in (DistanceRelationLoss(), AngleRelationLoss()):
        found = []
        for noise in (0., 5.):
            f = batch.student.features[0].detach().clone()
            f[1:, :, 1] += noise * torch.randn(5, 8, 3)
            found.append(
                term(Output((f, )), batch.teachers, where, weights))
        torch.testing.assert_close(*found)
        assert found[0] > .01


def test_relations_are_blind_to_rotation_and_size():
    x = torch.randn(8, 4, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    for relate in (distances, angles):
        torch.testing.assert_close(relate(x), relate(3 * x @ q + 1))


def test_relations_of_one_point_have_finite_gradients():
    x = torch.ones(6, 4)
    x[4:] = torch.randn(2, 4)
    for points in (x, torch.ones(6, 4), x[:3]):
        points = points.clone().requires_grad_()
        cosines = angles(points)
        # Different factors, as equal ones would cancel.
        (distances(points).square().sum() +
         (cosines * torch.arange(len(cosines))).sum()).backward()
        assert points.grad.isfinite().all()
        assert points.grad.abs().max() < 1e4


@pytest.mark.parametrize('count, size', [(1, 6), (3, 1), (3, 2), (1, 1)])
def test_one_teacher_and_few_samples(count, size):
    made, batch = strategy(count), kd_batch(count, size)
    weights = made(batch)
    assert weights.logit.shape == (size, count)
    torch.testing.assert_close(weights.logit.sum(1), torch.ones(size))
    losses = added(made, batch, weights)
    sum(losses.values()).backward()
    assert all(v.ndim == 0 and v.isfinite() for v in losses.values())
    assert all(p.grad.isfinite().all() for p in made.parameters())
    if count == 1:
        assert torch.equal(weights.logit, torch.ones(size, 1))
        assert losses['loss_mixture'].abs() < 1e-4
    if size < 3:
        assert losses['loss_angle'] == 0


def test_confident_teachers_have_finite_gradients():
    made, batch = strategy(), kd_batch()
    teachers = tuple(
        output(1e4 * t.logits[0], t.features[0]) for t in batch.teachers)
    batch = random_batch(
        student=batch.student, teachers=teachers, gaps=batch.gaps)
    sum(added(made, batch, made(batch)).values()).backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_half_precision_and_vectors(dtype):
    ctx = context(student=spec(shape=(8, )))
    made = strategy(ctx=ctx)
    batch = random_batch(
        student=output(
            torch.randn(6, 5).to(dtype), torch.randn(6, 8).to(dtype)),
        teachers=tuple(
            output(torch.randn(6, 5).to(dtype),
                   torch.randn(6, 4).to(dtype)) for _ in range(3)))
    weights = made(batch)
    losses = added(made, batch, weights)
    assert weights.logit.dtype == torch.float32
    assert all(v.dtype == torch.float32 and v.isfinite()
               for v in losses.values())


@pytest.mark.parametrize('kind', ['AverageWeighting', 'EBKD'])
def test_relations_beside_another_strategy(tmp_path, kind):
    """Relations are terms of the config, with the mean feature weights of the
    other strategy."""
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(
            toy_teachers(tmp_path),
            losses=[
                dict(type='KDLoss'),
                dict(type='DistanceRelationLoss', loss_weight=3.),
                dict(type='AngleRelationLoss', samples=4),
            ],
            weighting=dict(type=kind)))
    images, labels = World().batch(6)
    seen = {}
    model.distillation.weighting.register_forward_hook(
        lambda _, args, out: seen.update(batch=args[0], out=out))
    losses = model(images, samples(labels), mode='loss')
    assert set(losses) == {
        'loss_student', 'loss_logit', 'loss_distance', 'loss_angle'}
    w = seen['out'].feature.double().mean(0).numpy()
    s, *t = (o.features[0].mean((2, 3)).detach().double().numpy()
             for o in (seen['batch'].student, *seen['batch'].teachers))
    for name, relate, count, factor in (
        ('loss_distance', reference_distances, 6, 3.),
        ('loss_angle', reference_angles, 4, 2.)):
        target = sum(v * relate(x[:count]) for v, x in zip(w, t))
        assert losses[name].item() == pytest.approx(
            factor * huber(relate(s[:count]), target), rel=1e-4)
    (losses['loss_distance'] + losses['loss_angle']).backward()
    assert model.backbone.conv.weight.grad.abs().max() > 0
    # they have no parameters and are not in checkpoints
    assert not any(n.startswith('distillation.')
                   for n in model.state_dict())


@pytest.mark.parametrize('cfg, message', [
    (dict(type='DistanceRelationLoss', loss_weight=-1),
     r'model.losses\[0\].loss_weight must be >= 0, got -1'),
    (dict(type='AngleRelationLoss', samples=2),
     r'model.losses\[0\].samples must be >= 3, got 2'),
])
def test_bad_relations(tmp_path, cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(
            distiller(toy_teachers(tmp_path), losses=[cfg]))


def test_the_distillers_loss_is_the_mixtures(tmp_path):
    """The loss of the distiller is that of the mixture, and the optimiser
    trains the strategy's parameters."""
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(
            toy_teachers(tmp_path),
            feature_loss=None,
            weighting=dict(type='AMTMLKD', **PLAIN)))
    strategy = model.distillation.weighting
    torch.nn.init.normal_(strategy.latent)
    images, labels = World().batch(8)
    seen = {}
    strategy.register_forward_hook(
        lambda _, args, out: seen.update(batch=args[0], out=out))
    losses = model(images, samples(labels), mode='loss')
    p = sum(seen['out'].logit[:, m, None] * (t.logits[0] / 4).softmax(1)
            for m, t in enumerate(seen['batch'].teachers))
    log_q = (seen['batch'].student.logits[0] / 4).log_softmax(1)
    torch.testing.assert_close(
        losses['loss_logit'] + losses['loss_mixture'],
        16 * F.kl_div(log_q, p, reduction='batchmean'))
    names = {n for n, _ in model.named_parameters()}
    assert {'distillation.weighting.projection',
            'distillation.weighting.latent'} < names
    twin = copy.deepcopy(model)
    assert twin.distillation.weighting.latent is not strategy.latent


def test_training(tmp_path):
    check_training(tmp_path, dict(type='AMTMLKD'), own_parameters=2)


@pytest.mark.parametrize('cfg, error, message', [
    (dict(distance_weight=-1), ValueError, 'weighting.distance_weight.*-1'),
    (dict(angle_weight=-1), ValueError, 'weighting.angle_weight.*-1'),
    (dict(regularization=-1), ValueError, 'weighting.regularization.*-1'),
    (dict(relation_samples=2), ValueError, 'relation_samples must be >= 3'),
    (dict(scale='papers'), ValueError, "weighting.scale.*'papers'"),
    (dict(angle=1), TypeError, "model.weighting.*'angle'"),
])
def test_bad_configs(cfg, error, message):
    with pytest.raises(error, match=message):
        strategy(**cfg)
