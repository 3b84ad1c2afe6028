"""AE-KD: its quadratic programme compared with scipy's solution, its gradients
with the formula of KD's gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mmkd_rl.losses.kd import kd_divergence
from mmkd_rl.records import Gaps
from mmkd_rl.registry import MODELS, WEIGHTINGS, build
from mmkd_rl.weighting.ae_kd import minimum_norm
from tests.test_weighting.steps import check_training
from tests.toy import (
    World,
    context,
    distiller,
    output,
    random_batch,
    samples,
    toy_teachers,
)


def strategy(count=3, ctx=None, **cfg):
    return build(
        WEIGHTINGS,
        dict(type='AEKD', **cfg),
        'model.weighting',
        context=ctx or context(count))


def slsqp(gram, C):
    """Solve the same programme with scipy."""
    count = len(gram)
    scale = np.trace(gram) / count
    result = minimize(
        lambda a: .5 * a @ gram @ a / scale,
        np.full(count, 1 / count),
        jac=lambda a: gram @ a / scale,
        bounds=[(0, C)] * count,
        constraints=dict(
            type='eq',
            fun=lambda a: a.sum() - 1,
            jac=lambda a: np.ones(count)),
        method='SLSQP',
        options=dict(ftol=1e-14, maxiter=500))
    return result.x


@pytest.mark.parametrize('count', [2, 3, 4, 5, 7])
@pytest.mark.parametrize('C', ['1/M', 'a little more', .6, 1., 3.])
def test_minimum_norm_is_slsqps(count, C):
    C = {'1/M': 1 / count, 'a little more': 1 / count + .02}.get(C, C)
    rng = np.random.default_rng(count)
    for _ in range(5):
        rows = rng.normal(size=(count, 9)) + rng.normal()
        rows *= np.exp(rng.normal(size=(count, 1)))
        gram = rows @ rows.T
        alpha = minimum_norm(torch.tensor(gram), C).numpy()
        np.testing.assert_allclose(alpha, slsqp(gram, C), atol=2e-4)
        np.testing.assert_allclose(alpha.sum(), 1)
        assert (alpha >= 0).all() and (alpha <= C + 1e-6).all()


@pytest.mark.parametrize('count', [2, 4, 7])
def test_minimum_norm_where_the_solution_is_not_unique(count):
    for gram in (torch.zeros(count, count), torch.ones(count, count),
                 1e-20 * torch.ones(count, count)):
        torch.testing.assert_close(
            minimum_norm(gram.double(), .6),
            torch.full((count, ), 1 / count, dtype=torch.float64),
            # libsvm keeps its kernel in single precision.
            atol=1e-6 if count < 6 else 1e-3,
            rtol=0)


def test_two_teachers_in_closed_form():
    """Opposite gradients of lengths 1 and 3 cancel with weights 3/4 and 1/4;
    with C = 0.6 the weights stop at the bound before."""
    rows = torch.tensor([[1., 0.], [-3., 0.]], dtype=torch.float64)
    gram = rows @ rows.T
    torch.testing.assert_close(
        minimum_norm(gram, 1.),
        torch.tensor([.75, .25], dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        minimum_norm(gram, .6), torch.tensor([.6, .4], dtype=torch.float64))


def kd_batch(count=3, size=6, seed=0, dtype=torch.float32, scale=1.):
    """A batch whose gaps are KD's and a squared distance of features."""
    batch = random_batch(size, count, seed)
    z = (scale * batch.student.logits[0]).to(dtype).requires_grad_()
    f = batch.student.features[0].to(dtype).requires_grad_()
    teachers = tuple(
        output((scale * t.logits[0]).to(dtype), t.features[0].to(dtype))
        for t in batch.teachers)
    logit = kd_divergence(
        z, torch.stack([t.logits[0] for t in teachers], 1), None, 4.)
    feature = torch.stack([
        (f - t.features[0]).float().square().flatten(1).mean(1)
        for t in teachers
    ], 1)
    return random_batch(
        size,
        count,
        seed,
        student=output(z, f),
        teachers=teachers,
        gaps=Gaps(logit, feature, None))


def gradients_of_kd(batch, temperature=4.):
    """Gradients T (p_S - p_m) by the formula, [M, B, C]."""
    def soft(z):
        e = np.exp(z.detach().double().numpy() / temperature)
        return e / e.sum(1, keepdims=True)
    return np.stack([
        temperature * (soft(batch.student.logits[0]) - soft(t.logits[0]))
        for t in batch.teachers
    ])


@pytest.mark.parametrize('scale', ['unit', 'paper'])
@pytest.mark.parametrize('average', [False, True])
@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('count', [2, 3, 4])
def test_reference(count, normalize, average, scale):
    batch = kd_batch(count)
    weights = strategy(
        count,
        average_gradients=average,
        normalize=normalize,
        scale=scale)(batch)
    g = gradients_of_kd(batch)
    rows = g.mean(1) if average else g.reshape(count, -1)
    lengths = np.linalg.norm(rows, axis=1) if normalize else np.ones(count)
    rows = rows / lengths[:, None]
    alpha = slsqp(rows @ rows.T, .6) / lengths
    expected = torch.tensor(alpha / alpha.sum()).float().expand(6, count)
    torch.testing.assert_close(weights.logit, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(weights.logit.sum(1), torch.ones(6))
    assert torch.equal(weights.feature, weights.logit)
    assert not weights.logit.requires_grad


def test_feature_own_is_of_the_feature_losses():
    batch = kd_batch()
    weights = strategy(feature='own')(batch)
    f = batch.student.features[0].detach().double().flatten(1).numpy()
    rows = np.stack([
        2 * (f - t.features[0].double().flatten(1).numpy()) / 8
        for t in batch.teachers
    ]).reshape(3, -1)
    expected = torch.tensor(slsqp(rows @ rows.T, .6)).float()
    torch.testing.assert_close(
        weights.feature, expected.expand(6, 3), atol=2e-4, rtol=0)
    assert not torch.allclose(weights.feature, weights.logit, atol=1e-3)
    # without logit terms these are the only gradients
    alone = random_batch(
        student=batch.student,
        gaps=Gaps(None, batch.gaps.feature, None))
    torch.testing.assert_close(
        strategy(ctx=context(logit_weight=None))(alone).feature,
        weights.feature)
    alone = random_batch(
        student=batch.student, gaps=Gaps(batch.gaps.logit, None, None))
    torch.testing.assert_close(
        strategy(feature='own')(alone).feature, weights.logit)


def test_the_later_backward_pass_is_undisturbed():
    """The gradient of the loss is that of the weighted sum, and AE-KD has
    added nothing to it before."""
    for feature in ('same', 'own'):
        batch = kd_batch()
        weights = strategy(feature=feature)(batch)
        assert all(t.grad is None for t in batch.student.tensors())
        ((weights.logit * batch.gaps.logit).sum() +
         (weights.feature * batch.gaps.feature).sum()).backward()
        expected = np.einsum('bm,mbc->bc', weights.logit.numpy(),
                             gradients_of_kd(batch))
        np.testing.assert_allclose(
            batch.student.logits[0].grad.numpy(), expected, atol=1e-5)


def test_identical_teachers_weigh_the_same():
    batch = kd_batch()
    gap = batch.gaps.logit[:, :1].expand(-1, 3)
    same = random_batch(student=batch.student, gaps=Gaps(gap, None, None))
    for options in (dict(), dict(normalize=True), dict(C=1.)):
        torch.testing.assert_close(
            strategy(**options)(same).logit, torch.full((6, 3), 1 / 3))
    # ... and without gradient, or with one that overflowed
    for factor in (0., torch.inf):
        none = random_batch(
            student=batch.student, gaps=Gaps(factor * gap, None, None))
        for options in (dict(), dict(normalize=True)):
            torch.testing.assert_close(
                strategy(**options)(none).logit, torch.full((6, 3), 1 / 3))


@pytest.mark.parametrize('count', [4, 6])
def test_one_overflow_spoils_no_weights(count):
    batch = kd_batch(count)
    gap = batch.gaps.logit * torch.tensor([torch.inf] + [1.] * (count - 1))
    batch = random_batch(
        count=count, student=batch.student, gaps=Gaps(gap, None, None))
    weights = strategy(count)(batch).logit
    torch.testing.assert_close(weights, torch.full((6, count), 1 / count))


def test_a_lone_zero_gradient_with_normalize():
    batch = kd_batch()
    gap = batch.gaps.logit * torch.tensor([0., 1., 1.])
    batch = random_batch(student=batch.student, gaps=Gaps(gap, None, None))
    weights = strategy(normalize=True)(batch).logit
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(1), torch.ones(6))


@pytest.mark.parametrize('average', [False, True])
def test_what_a_teacher_does_not_know_does_not_count(average):
    """The gradient of an image is multiplied by the share of its label on
    classes that the teacher knows."""
    batch = kd_batch()
    knows = torch.tensor([[1., 1., 0.]] * 2 + [[1., .5, 1.]] * 4)
    weights = strategy(average_gradients=average)(
        replace(batch, class_coverage=knows)).logit
    g = gradients_of_kd(batch) * knows.T[..., None].numpy()
    rows = g.mean(1) if average else g.reshape(3, -1)
    expected = torch.tensor(slsqp(rows @ rows.T, .6)).float().expand(6, 3)
    torch.testing.assert_close(weights, expected, atol=2e-4, rtol=0)
    everything = strategy(average_gradients=average)(batch).logit
    # with averaged gradients the same teachers are at the same bounds
    assert average or (weights - everything).abs().max() > .01


def test_unknown_classes_in_the_distiller(tmp_path):
    """A teacher without a class gives no gradient for images of the class."""
    torch.manual_seed(0)
    teacher, = toy_teachers(tmp_path, 1)
    model = MODELS.build(
        distiller(
            [teacher, dict(teacher, name='few', class_map={0: 0, 1: 1})],
            feature_loss=None,
            weighting=dict(type='AEKD', C=1.)))
    images, _ = World().batch(12)
    found = []
    model.distillation.weighting.register_forward_hook(
        lambda _, args, out: found.append((args[0], out.logit)))
    model(images, samples(torch.tensor([0] * 6 + [3] * 6)), mode='loss')
    (batch, got), = found
    half = torch.tensor([1.] * 6 + [0.] * 6)
    assert torch.equal(batch.class_coverage,
                       torch.stack([torch.ones(12), half], 1))
    rows = torch.stack([
        torch.autograd.grad((gap * knows).sum(), batch.student.logits[0],
                            retain_graph=True)[0].flatten().double()
        for gap, knows in zip(batch.gaps.logit.T, (torch.ones(12), half))
    ])
    torch.testing.assert_close(
        got, minimum_norm(rows @ rows.T, 1.).float().expand(12, 2))


def test_without_gradients_weights_are_equal():
    batch = kd_batch()
    with torch.no_grad():
        gaps = Gaps(batch.gaps.logit * 1, None, None)
    plain = random_batch(gaps=gaps)
    assert torch.equal(strategy()(plain).logit, torch.full((6, 3), 1 / 3))


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_half_precision_does_not_underflow(dtype):
    """For a student that nearly agrees with its teachers in a large batch,
    gradients of the mean would vanish in half precision."""
    weights = {}
    for kind in (dtype, torch.float32):
        batch = kd_batch(size=2048, dtype=kind, scale=1e-4)
        gap = batch.gaps.logit * torch.tensor([1., 2., 4.])
        weights[kind] = strategy(C=1.)(random_batch(
            2048, student=batch.student, gaps=Gaps(gap, None, None))).logit
    assert weights[dtype].dtype == torch.float32
    torch.testing.assert_close(
        weights[dtype], weights[torch.float32], atol=.05, rtol=0)
    assert (weights[dtype] - 1 / 3).abs().max() > .1


@pytest.mark.parametrize('count, size', [(1, 6), (3, 1), (1, 1)])
def test_one_teacher_and_one_sample(count, size):
    weights = strategy(count)(kd_batch(count, size)).logit
    assert weights.shape == (size, count) and weights.isfinite().all()
    torch.testing.assert_close(weights.sum(1), torch.ones(size))


def test_training(tmp_path):
    check_training(tmp_path, dict(type='AEKD'))
    check_training(
        tmp_path / 'own', dict(type='AEKD', feature='own', C=.5), 3)


def test_the_distillers_gradients_are_as_with_given_weights(tmp_path):
    """A step accumulates only the gradient of the weighted loss."""
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(toy_teachers(tmp_path, 3), weighting=dict(type='AEKD')))
    images, labels = World().batch(8)
    losses = model(images, samples(labels), mode='loss')
    sum(losses.values()).backward()
    got = [p.grad.clone() for p in model.parameters()]
    weights = model.distillation.last_step.weights
    model.zero_grad()
    model.distillation.weighting.forward = lambda batch: weights
    losses = model(images, samples(labels), mode='loss')
    sum(losses.values()).backward()
    for p, g in zip(model.parameters(), got):
        torch.testing.assert_close(p.grad, g)


@pytest.mark.parametrize('cfg, error, message', [
    (dict(C=.3), ValueError, 'weighting.C must be >= 1 / 3.*0.3'),
    (dict(feature='mine'), ValueError, "weighting.feature.*'own'.*'mine'"),
    (dict(scale='papers'), ValueError, "weighting.scale.*'papers'"),
    (dict(nu=.1), TypeError, "model.weighting.*'nu'"),
])
def test_bad_configs(cfg, error, message):
    with pytest.raises(error, match=message):
        strategy(**cfg)
