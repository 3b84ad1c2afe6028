"""MMKD: the gradient through the student's steps, and what it learns."""

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger

from mmkd_rl.records import (
    Batch,
    DistillationBatch,
    Gaps,
    Pair,
    SeenBatch,
    TeacherStep,
)
from mmkd_rl.registry import WEIGHTINGS, build
from mmkd_rl.tasks import ClassificationTask
from mmkd_rl.weighting.mmkd.hard_samples import HardBuffer, HardSamples
from tests.toy import (
    CLASSES,
    context,
    output,
    random_batch,
    spec,
    truth,
)

B, M, IMAGE, WIDTH, D = 4, 3, 6, 4, (3, 5, 2)
T, ALPHA, BETA = 4., 1., 5.


class Exact(ClassificationTask):
    """Network in the precision of the logits, for finite differences."""

    def quality(self, output, truth):
        return -F.cross_entropy(
            output.logits[0], truth.targets, reduction='none')


def strategy(count=M, ctx=None, **cfg):
    torch.manual_seed(0)
    made = build(
        WEIGHTINGS,
        dict(type='MMKD', **cfg),
        'model.weighting',
        context=ctx or context(count))
    made.learner.has_hook = True
    return made.train()


# --- the meta gradient against a slow reference -----------------------------


class Linear:
    """A linear student, f = x A, z = f V, r_m = f P_m, by formulas.

    All its gradients are explicit; those of the meta networks are computed by
    finite differences.
    """

    def __init__(self, soft=False):
        g = np.random.default_rng(0)
        self.x = g.normal(size=(B, IMAGE))
        self.z_t = 3 * g.normal(size=(M, B, CLASSES))
        self.f_t = [g.normal(size=(B, d)) for d in D]
        self.y = np.eye(CLASSES)[g.integers(CLASSES, size=B)]
        if soft:
            self.y = .7 * self.y + .3 * np.roll(self.y, 1, 0)
        self.theta = {
            'A': g.normal(size=(IMAGE, WIDTH)),
            'V': g.normal(size=(WIDTH, CLASSES)),
            **{f'P{m}': g.normal(size=(WIDTH, d)) for m, d in enumerate(D)}
        }

    def networks(self, made):
        return {
            name: [p.detach().numpy().copy() for p in net.parameters()]
            for name, net in made.learner.networks.items()
        }

    def ce(self, theta):
        log_p = np.log(softmax(self.x @ theta['A'] @ theta['V']))
        return -(self.y * log_p).sum(1).mean()

    def step(self, theta, nets, lr):
        f = self.x @ theta['A']
        z = f @ theta['V']
        r = [f @ theta[f'P{m}'] for m in range(M)]
        w_l = mlp(np.concatenate([*self.z_t, z], 1), nets['logit'])
        w_f = mlp(
            np.concatenate([
                D[m] * unit(r[m]) * unit(self.f_t[m]) for m in range(M)
            ], 1), nets['feature'])
        q_s = softmax(z / T)
        grad_z = np.zeros_like(z)
        grad_r = []
        for m in range(M):
            q_m = softmax(self.z_t[m] / T)
            grad_z += ALPHA * w_l[:, m:m + 1] * T * (q_s - q_m) / B
            grad_r.append(BETA * w_f[:, m:m + 1] * 2 *
                          (r[m] - self.f_t[m]) / D[m] / B)
        grad_f = grad_z @ theta['V'].T + sum(
            grad_r[m] @ theta[f'P{m}'].T for m in range(M))
        slopes = {
            'A': self.x.T @ grad_f,
            'V': f.T @ grad_z,
            **{f'P{m}': f.T @ grad_r[m] for m in range(M)}
        }
        return {n: v - lr[n] * slopes[n] for n, v in theta.items()}

    def ce_step(self, theta, lr):
        f = self.x @ theta['A']
        grad_z = (softmax(f @ theta['V']) - self.y) / B
        return dict(
            theta,
            A=theta['A'] - lr['A'] * self.x.T @ (grad_z @ theta['V'].T),
            V=theta['V'] - lr['V'] * f.T @ grad_z)

    def objective(self, nets, lr, steps, ce_step):
        theta = self.theta
        for _ in range(steps):
            theta = self.step(theta, nets, lr)
        if ce_step:
            theta = self.ce_step(theta, lr)
        return self.ce(theta)

    def observe(self, theta):
        """Pass the same student to the code under test, in float64."""
        f = torch.from_numpy(self.x) @ theta['A']
        z = f @ theta['V']
        pairs = tuple(
            Pair(f @ theta[f'P{m}'], torch.from_numpy(self.f_t[m]))
            for m in range(M))
        z_t = torch.from_numpy(self.z_t).transpose(0, 1)
        log_p = (z_t / T).log_softmax(2)
        log_q = (z / T).log_softmax(1)[:, None]
        return DistillationBatch(
            output(z, f),
            tuple(output(z_t[:, m], pairs[m].teacher) for m in range(M)),
            truth(torch.from_numpy(self.y)),
            Gaps(
                T**2 * (log_p.exp() * (log_p - log_q)).sum(2),
                torch.stack([(p.student - p.teacher).square().mean(1)
                             for p in pairs], 1), None),
            tuple((p, ) for p in pairs))


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def unit(v):
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def mlp(x, parameters):
    w1, b1, w2, b2 = parameters
    return softmax(np.maximum(x @ w1.T + b1, 0) @ w2.T + b2)


@pytest.mark.parametrize('cfg', [
    dict(),
    dict(inner_steps=1),
    dict(inner_steps=3),
    dict(ce_step=True)
])
def test_meta_gradient_against_finite_differences(cfg):
    world = Linear(soft=True)
    ctx = context(
        task=Exact(),
        student=spec(shape=(WIDTH, )),
        teachers=tuple(spec(f't{m}', shape=(d, )) for m, d in enumerate(D)))
    made = strategy(ctx=ctx, hidden=7, **cfg)
    made.apply_(lambda t: t.double())
    for p in made.learner.parameters():
        torch.nn.init.normal_(p, std=.5)  # with 0 layer 1 has no gradient
    lr = dict(A=.05, V=.08, P0=.03, P1=0., P2=.1)
    theta = {
        n: torch.from_numpy(v).requires_grad_()
        for n, v in world.theta.items()
    }
    before, after = made.learner.meta_losses(world.observe, theta, lr)
    steps, ce_step = cfg.get('inner_steps', 2), cfg.get('ce_step', False)
    nets = world.networks(made)
    assert before.item() == pytest.approx(world.ce(world.theta), rel=1e-9)
    assert after.item() == pytest.approx(
        world.objective(nets, lr, steps, ce_step), rel=1e-9)
    assert abs(before.item() - after.item()) > 1e-3
    found = torch.autograd.grad(after, made.learner.parameters())
    flat = [array for net in nets.values() for array in net]
    for array, gradient in zip(flat, found):
        assert gradient.abs().max() > 1e-8
        for i in np.random.default_rng(1).integers(array.size, size=6):
            value, h = array.flat[i], 1e-5
            ends = []
            for shift in (h, -h):
                array.flat[i] = value + shift
                ends.append(world.objective(nets, lr, steps, ce_step))
            array.flat[i] = value
            assert gradient.flatten()[i].item() == pytest.approx(
                (ends[0] - ends[1]) / 2 / h, rel=1e-4, abs=1e-9)


def test_a_teacher_that_does_not_know_the_class_does_not_pull():
    """If no teacher knows the class, the logit term has no effect; if all do,
    losses are those without class maps."""
    world = Linear()
    theta = {
        n: torch.from_numpy(v).requires_grad_()
        for n, v in world.theta.items()
    }
    lr = dict.fromkeys(theta, .1)

    def after(knows=None, **kwargs):
        made = strategy(
            ctx=context(
                student=spec(shape=(WIDTH, )),
                teachers=tuple(
                    spec(f't{m}', shape=(d, )) for m, d in enumerate(D)),
                **kwargs))
        made.apply_(lambda t: t.double())

        def observe(parameters):
            batch = world.observe(parameters)
            return batch if knows is None else replace(
                batch,
                class_coverage=torch.full_like(batch.gaps.logit, knows))

        return made.learner.meta_losses(observe, theta, lr)[1]

    assert after() != after(logit_weight=0.)
    torch.testing.assert_close(after(knows=0.), after(logit_weight=0.))
    torch.testing.assert_close(after(knows=1.), after())


# --- the strategy alone ------------------------------------------------------


def test_equal_at_first_and_rows_sum_to_one():
    made, batch = strategy(), with_pairs(random_batch())
    weights = made(batch)
    for w in (weights.logit, weights.feature):
        torch.testing.assert_close(w, torch.full((6, 3), 1 / 3))
    disturb(made)
    weights = made(batch)
    for w in (weights.logit, weights.feature):
        torch.testing.assert_close(w.sum(1), torch.ones(6))
        assert (w - 1 / 3).abs().max() > .01 and not w.requires_grad
    assert not torch.allclose(weights.logit, weights.feature)


def with_pairs(batch):
    return replace(
        batch,
        pairs=tuple((Pair(batch.student.features[0] * (m + 1) + m,
                          t.features[0]), )
                    for m, t in enumerate(batch.teachers)))


def disturb(made):
    torch.manual_seed(1)
    for p in made.learner.parameters():
        torch.nn.init.normal_(p, std=.3)


@pytest.mark.parametrize('off', ['logit', 'feature'])
def test_one_kind_of_distillation_alone(off):
    made = strategy(ctx=context(**{f'{off}_weight': None}))
    disturb(made)
    batch = random_batch()
    weights = made(with_pairs(batch) if off == 'logit' else batch)
    assert torch.equal(getattr(weights, off), torch.full((6, 3), 1 / 3))
    other = 'feature' if off == 'logit' else 'logit'
    assert (getattr(weights, other) - 1 / 3).abs().max() > .01


@pytest.mark.parametrize('count, size', [(1, 6), (3, 1), (1, 1)])
def test_one_teacher_and_one_sample(count, size):
    made = strategy(count)
    disturb(made)
    weights = made(with_pairs(random_batch(size=size, count=count)))
    for w in (weights.logit, weights.feature):
        assert w.shape == (size, count)
        torch.testing.assert_close(w.sum(1), torch.ones(size))


def test_features_that_are_zero_are_related_to_nothing():
    batch = random_batch()
    zero = torch.zeros_like(batch.student.features[0])
    made = strategy()
    disturb(made)
    weights = made(replace(batch, pairs=((Pair(zero, zero), ), ) * 3))
    assert weights.feature.isfinite().all()


def test_in_evaluation_nothing_is_remembered():
    made, batch = strategy().eval(), with_pairs(random_batch())
    made.learner.remember(seen(batch), made(batch).record)
    assert len(made.learner.buffer) == 0


def test_the_global_generator_is_left_alone():
    """Random numbers of the student do not depend on the strategy."""
    made = strategy()
    before = torch.get_rng_state()
    for seed in range(2):
        batch = with_pairs(random_batch(seed=seed))
        made.learner.remember(seen(batch), made(batch).record)
        made.learner.buffer.draw(2)
        made.learner.step([torch.ones_like(p)
                           for p in made.learner.parameters()])
    assert torch.equal(torch.get_rng_state(), before)
    made.learner.random.seed(3)
    first = made.learner.buffer.draw(2)
    made.learner.random.seed(3)
    again = made.learner.buffer.draw(2)
    assert torch.equal(first.inputs, again.inputs)


def test_a_state_of_the_first_layout_is_read():
    """Logits before feature, no random numbers."""
    made, batch = strategy(), with_pairs(random_batch())
    made.learner.remember(seen(batch), made(batch).record)
    state = made.learner.state_dict()
    drawn = made.learner.buffer.draw(9)
    inputs, targets, *rest = state['buffer'][0]['columns']
    state['buffer'] = [[
        inputs, targets,
        *(t for f, z in zip(rest[::2], rest[1::2]) for t in (z, f))
    ]]
    del state['random']
    other = strategy()
    other.learner.load_state_dict(state)
    got = other.learner.buffer.draw(9)
    for a, b in zip(got.columns(), drawn.columns()):
        assert torch.equal(a.sort(0).values, b.sort(0).values)


def test_warns_once_without_the_hook(caplog):
    made = strategy()
    made.learner.has_hook = False
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, logger=logger.name):
            for _ in range(3):
                made(with_pairs(random_batch()))
    finally:
        logger.removeHandler(caplog.handler)
    assert 1 == sum('MetaWeightingHook' in r.getMessage()
                    for r in caplog.records)


@pytest.mark.parametrize('cfg, error, message', [
    (dict(scale='papers'), ValueError, "weighting.scale must be.*'papers'"),
    (dict(hidden=0), ValueError, 'weighting.hidden must be >= 1, got 0'),
    (dict(inner_steps=0), ValueError, 'weighting.inner_steps.*got 0'),
    (dict(meta_batch_size=0), ValueError, 'weighting.meta_batch_size.*got 0'),
    (dict(buffer_size=0), ValueError, 'weighting.buffer_size.*got 0'),
    (dict(buffer_bytes=0), ValueError, 'weighting.buffer_bytes.*got 0'),
    (dict(hard_share=0), ValueError, r'weighting.hard_share.*\(0, 1\].*got 0'),
    (dict(hard_share=1.5), ValueError, 'weighting.hard_share.*got 1.5'),
    (dict(inner_lr=0), ValueError, 'weighting.inner_lr must be > 0 or None'),
    (dict(optimizer=dict(type='Adamm')), ValueError,
     "weighting.optimizer.type: 'Adamm'.*'Adam'"),
    (dict(optimizer=dict(momentum=.1)), TypeError,
     "weighting.optimizer.*'momentum'"),
    (dict(interval=5), TypeError, "model.weighting.*'interval'"),
])
def test_bad_configs(cfg, error, message):
    with pytest.raises(error, match=message):
        strategy(**cfg)


# --- hard samples ------------------------------------------------------------


def seen(batch, images=None):
    """A batch in the form that the hook passes to the strategy."""
    targets = batch.truth.targets
    if images is None:
        images = torch.arange(len(targets)).float()[:, None]
    return SeenBatch(Batch(images), batch.truth, TeacherStep(batch.teachers))


def hard_samples(batch, images=None):
    return HardSamples.of_batch(seen(batch, images))


def test_the_hardest_of_each_batch_are_kept_with_their_teachers():
    batch = random_batch(size=8)
    buffer = HardBuffer(share=.25)
    buffer.add(
        hard_samples(batch), torch.tensor([0., 5, 1, 0, 7, 2, 3, 4]))
    drawn = buffer.draw(9)
    assert sorted(drawn.inputs.flatten().tolist()) == [1, 4]
    for row, i in enumerate(drawn.inputs.flatten().long()):
        assert drawn.targets[row] == batch.truth.targets[i]
        for kept, whole in zip(drawn.teachers, batch.teachers):
            for a, b in zip(kept.tensors(), whole.tensors()):
                assert torch.equal(a[row], b[i])


def test_the_newest_stay_within_the_bounds():
    row = sum(t[:1].numel() * t.element_size()
              for t in hard_samples(random_batch()).columns())
    for buffer, most in ((HardBuffer(max_samples=5, share=.5), 5),
                         (HardBuffer(max_bytes=5 * row, share=.5), 5)):
        for step in range(4):
            images = torch.full((4, 1), float(step))
            buffer.add(
                hard_samples(random_batch(size=4), images), torch.rand(4))
            assert 0 < len(buffer) <= most
            assert buffer.nbytes <= 5 * row
        assert sorted(buffer.draw(9).inputs.flatten()) == [2, 2, 3, 3]
    small = HardBuffer(max_samples=3, share=1.)
    small.add(hard_samples(random_batch(size=4)),
              torch.tensor([1., 0., 2., 3.]))
    assert sorted(small.draw(9).inputs.flatten()) == [0, 2, 3]
    with pytest.raises(ValueError, match=f'buffer_bytes: {row - 1} '
                       f'is too small: one sample takes {row} bytes'):
        HardBuffer(max_bytes=row - 1).add(
            hard_samples(random_batch()), torch.rand(6))


def test_draws_differ_and_are_without_repetition():
    buffer = HardBuffer(share=1.)
    buffer.add(hard_samples(random_batch(size=32)), torch.rand(32))
    first, second = (buffer.draw(8).inputs.flatten().tolist()
                     for _ in range(2))
    assert len(set(first)) == 8 and first != second


def test_targets_of_another_kind_begin_anew():
    buffer, batch = HardBuffer(share=1.), random_batch()
    buffer.add(hard_samples(batch), torch.rand(6))
    soft = replace(
        batch, truth=truth(
            F.one_hot(batch.truth.targets, CLASSES).float()))
    buffer.add(hard_samples(soft), torch.rand(6))
    assert len(buffer) == 6
    assert buffer.draw(9).targets.shape == (6, CLASSES)


def test_state_is_restored_whole():
    made = strategy()
    for seed in range(3):
        batch = with_pairs(random_batch(seed=seed))
        made.learner.remember(seen(batch), made(batch).record)
        made.learner.step([torch.randn_like(p)
                           for p in made.learner.parameters()])
    state = copy.deepcopy(made.learner.state_dict())
    other = strategy()
    other.learner.load_state_dict(state)
    assert other.learner.updates == 3
    a, b = made.learner.buffer.draw(4), other.learner.buffer.draw(4)
    for x, y in zip(a.columns(), b.columns()):
        assert torch.equal(x, y)
    for learner in (made.learner, other.learner):
        torch.manual_seed(6)
        learner.step([torch.randn_like(p) for p in learner.parameters()])
    for p, q in zip(made.learner.parameters(), other.learner.parameters()):
        assert torch.equal(p, q)
    with pytest.raises(ValueError, match='weight networks do not fit'):
        strategy(count=2).learner.load_state_dict(state)


def test_gradients_that_are_not_finite_change_nothing():
    learner = strategy().learner
    before = [p.clone() for p in learner.parameters()]
    finite, _ = learner.step([torch.full_like(p, torch.nan) for p in before])
    assert not finite and learner.updates == 0
    assert not learner.optimizer.state
    for p, q in zip(before, learner.parameters()):
        assert torch.equal(p, q)
