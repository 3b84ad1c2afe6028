"""PKD compared with its definition by loops and with the published formula;
what each image's share is; the same in one and in two processes."""

import numpy as np
import pytest
import torch

from mmkd_rl.losses import PKDLoss
from mmkd_rl.records import Pair, Truth
from tests.test_losses import two_processes
from tests.test_losses.steps import check_with_strategies, of_features

#: Valid points of four 3x4 images: a part of the first, all of the second, a
#: part of the third with points that count less, none of the last.
VALID = torch.zeros(4, 3, 4)
VALID[0, :, :2] = 1
VALID[1] = 1
VALID[2, 1:, 1:] = 1
VALID[2, 1] *= .3
TRUTH = Truth(None, VALID, (VALID > 0).sum((1, 2)).float())


def draw(*shape, seed=0):
    """Channels of different mean and scale."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    channel = torch.arange(1., shape[1] + 1).view(-1, *[1] * (len(shape) - 2))
    return channel * x + 3 * channel


@pytest.fixture
def pairs():
    """Aligned features of two teachers, [4, D, 3, 4] each; the student's are
    related to them."""
    teachers = [draw(4, d, 3, 4, seed=d) for d in (3, 5)]
    return [(.5 * t + .2 * draw(*t.shape, seed=9), t) for t in teachers]


def reference(student, teacher, valid, eps=1e-6):
    """Shares by loops in double precision, [B]."""
    s, t = (np.asarray(x.double()) for x in (student, teacher))
    v = np.asarray(valid.double())
    points = [(i, h, w) for i in range(len(v)) for h in range(v.shape[1])
              for w in range(v.shape[2]) if v[i, h, w] > 0]
    images = len({i for i, _, _ in points})
    n = sum(v[p] for p in points)
    free = n - sum(v[p]**2 for p in points) / n
    shares = np.zeros(len(v))
    for d in range(s.shape[1]):
        unit = []
        for x in (s, t):
            mean = sum(v[p] * x[p[0], d, p[1], p[2]] for p in points) / n
            square = sum(v[p] * (x[p[0], d, p[1], p[2]] - mean)**2
                         for p in points)
            unit.append({
                p: (x[p[0], d, p[1], p[2]] - mean) /
                ((square / free)**.5 + eps) for p in points})
        for p in points:
            shares[p[0]] += v[p] * (unit[0][p] - unit[1][p])**2 / 2
    return shares * images / (n * s.shape[1])


def published(student, teacher):
    """The batch's loss, with the standard deviation of the authors' code."""
    total = 0.
    for s, t in zip(*(np.asarray(x.double()).swapaxes(0, 1)
                      for x in (student, teacher))):
        s, t = ((x - x.mean()) / (x.std(ddof=1) + 1e-6) for x in (s, t))
        total += ((s - t)**2).mean() / 2
    return total / student.shape[1]


def of(term, pairs, valid=None, truth=None):
    return term.compare(
        tuple((Pair(s, t, valid), ) for s, t in pairs),
        truth or Truth(None, valid, torch.ones(len(pairs[0][0]))))


@pytest.mark.parametrize('valid', [None, VALID], ids=['all', 'masked'])
def test_against_loops(pairs, valid):
    loss = of(PKDLoss(), pairs, valid)
    assert loss.shape == (4, 2) and loss.dtype == torch.float32
    for m, pair in enumerate(pairs):
        np.testing.assert_allclose(
            loss[:, m], reference(
                *pair, torch.ones(4, 3, 4) if valid is None else valid),
            rtol=1e-4, atol=1e-7)


def test_the_mean_of_the_shares_is_the_published_loss(pairs):
    loss = of(PKDLoss(), pairs)
    assert (loss > 0).all()
    for m, (student, teacher) in enumerate(pairs):
        assert float(loss[:, m].mean()) == pytest.approx(
            published(student, teacher), rel=1e-5)
        # which is 1 - rho but for n - 1 in the variance
        n = student[:, 0].numel()
        rho = np.mean([
            np.corrcoef(s.ravel(), t.ravel())[0, 1] for s, t in zip(
                student.transpose(0, 1).numpy(),
                teacher.transpose(0, 1).numpy())])
        assert float(loss[:, m].mean()) == pytest.approx(
            (n - 1) / n * (1 - rho), rel=1e-3)


def test_the_mean_of_masked_shares_is_that_of_the_valid_pixels(pairs):
    """As if the batch were one image of all valid pixels; the image without
    any does not count."""
    valid = (VALID == 1).float()
    truth = Truth(None, valid, valid.sum((1, 2)))
    loss = of(PKDLoss(), pairs, valid, truth)
    for m, pair in enumerate(pairs):
        student, teacher = (
            x.movedim(1, 3)[valid > 0].T[None] for x in pair)
        assert float(truth.mean(loss[:, m])) == pytest.approx(
            published(student, teacher), rel=1e-5)
    assert not loss[3].any() and (loss[:3] > 0).all()


@pytest.mark.parametrize('valid', [None, VALID], ids=['all', 'masked'])
def test_a_student_that_is_the_teacher_is_at_rest(pairs, valid):
    """Whatever weights the images have."""
    x = pairs[0][1].clone().requires_grad_()
    loss = of(PKDLoss(), [(x, pairs[0][1])], valid)
    assert not loss.any()
    (torch.tensor([5., 0., 1., 2.]) * loss[:, 0]).sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize('valid', [None, VALID], ids=['all', 'masked'])
def test_channels_may_be_shifted_and_scaled(pairs, valid):
    before = of(PKDLoss(), pairs, valid)
    scale = torch.tensor([.5, 3., 20.])[:, None, None]
    student, teacher = pairs[0]
    after = of(PKDLoss(), [(scale * student - 40, 7 * teacher + scale)], valid)
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=1e-4, atol=1e-6)
    other = of(PKDLoss(), [(-student, teacher)], valid)
    assert (other[:3, 0] > 1.1 * before[:3, 0]).all()


def test_an_ignored_region_changes_neither_loss_nor_gradient(pairs):
    hidden = (VALID == 0).unsqueeze(1)
    results = []
    for noise in (0., torch.inf):
        x, y = (torch.where(hidden, noise, x) for x in pairs[0])
        x.requires_grad_()
        loss = of(PKDLoss(), [(x, y)], VALID)
        loss.square().sum().backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(*results)
    gradient = results[0][1]
    assert not gradient.masked_select(hidden).any()
    assert gradient.masked_select(~hidden).any()


def test_without_valid_pixels(pairs):
    """In the whole batch, or but one: there is no variance."""
    for index in ((), (0, 0, 0)):
        valid = torch.zeros(4, 3, 4)
        if index:
            valid[index] = 1
        x = pairs[0][0].clone().requires_grad_()
        loss = of(PKDLoss(), [(x, pairs[0][1])], valid)
        loss.sum().backward()
        assert not loss.any() and not x.grad.any()


@pytest.mark.parametrize('value', [0., 1 / 3, 1e4 / 7])
@pytest.mark.parametrize('who', [(0, ), (1, ), (0, 1)])
def test_constant_channels(who, value):
    """A constant channel costs 1/2 against a channel that varies, and has no
    gradient."""
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 40, 50, generator=g) for _ in range(2)]
    for i in who:
        maps[i][:, 1] = value
    x = maps[0].requires_grad_()
    loss = of(PKDLoss(), [(x, maps[1])])[:, 0]
    loss.sum().backward()
    others = of(PKDLoss(), [(maps[0][:, ::2], maps[1][:, ::2])])[:, 0]
    own = (3 * loss - 2 * others).detach()
    # n - 1 in the variance
    assert float(own.mean()) == pytest.approx(
        0. if len(who) == 2 else (1 - 1 / 4000) / 2, abs=1e-5)
    assert x.grad.isfinite().all()
    assert x.grad[:, 1].abs().max() < 1e-6 < x.grad[:, 0].abs().max()


def test_vectors():
    """Statistics over the batch; an image without valid pixels is left
    out."""
    s, t = draw(5, 3), draw(5, 3, seed=1)
    loss = of_features(PKDLoss(), [(s, t)])
    np.testing.assert_allclose(
        loss[:, 0], reference(s[..., None, None], t[..., None, None],
                              torch.ones(5, 1, 1)), rtol=1e-4)
    valid = torch.ones(5, 2, 2)
    valid[2] = 0
    truth = Truth(None, valid, valid.sum((1, 2)))
    masked = of(PKDLoss(), [(s, t)], None, truth)
    kept = [0, 1, 3, 4]
    assert masked[2] == 0
    torch.testing.assert_close(
        masked[kept], of_features(PKDLoss(), [(s[kept], t[kept])]))
    one = of_features(PKDLoss(), [(s[:1].requires_grad_(), t[:1])])
    one.sum().backward()
    assert one.shape == (1, 1) and not one.any()


def test_several_levels_are_averaged(pairs):
    levels = tuple(Pair(*pair) for pair in pairs)
    loss = PKDLoss().compare((levels, levels[::-1]), Truth(
        None, None, torch.ones(4)))
    mean = of(PKDLoss(), pairs).mean(1)
    torch.testing.assert_close(loss, torch.stack([mean, mean], 1))


def test_half_precision_is_computed_in_float32(pairs):
    for dtype in (torch.float16, torch.bfloat16):
        half = [(s.to(dtype), t.to(dtype)) for s, t in pairs]
        x = half[0][0].requires_grad_()
        loss = of(PKDLoss(), half)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, of(PKDLoss(), [
            (s.float(), t.float()) for s, t in half]))
        loss.sum().backward()
        assert x.grad.isfinite().all() and x.grad.any()


@pytest.mark.parametrize('kwargs', [
    dict(), dict(size=1, logit_loss=None), dict(count=1),
    dict(dtype=torch.bfloat16), dict(taps=dict(feature='neck'))
])
def test_with_strategies(kwargs):
    check_with_strategies(feature_loss=dict(type='PKDLoss'), **kwargs)


@pytest.mark.parametrize('kwargs, value', [
    (dict(eps=-1.), r'eps must be >= 0, got -1\.0'),
    (dict(loss_weight=-1), 'loss_weight must be >= 0, got -1'),
])
def test_bad_arguments(kwargs, value):
    with pytest.raises(ValueError, match=f'^PKDLoss.{value}'):
        PKDLoss(**kwargs)


def test_two_processes_equal_one(tmp_path):
    """Gaps, loss and gradients, with two levels, two teachers and masks."""
    model = two_processes.Student()
    whole = two_processes.step(model, slice(6), model)
    # With its own statistics each half would give something else.
    alone = two_processes.Student()
    half = two_processes.step(alone, slice(3), alone)
    assert not torch.allclose(half['gaps'], whole['gaps'][:3], rtol=.01)
    first, second = two_processes.run(tmp_path)
    close = dict(rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.cat([first['gaps'], second['gaps']]), whole['gaps'], **close)
    torch.testing.assert_close(
        (first['loss'] + second['loss']) / 2, whole['loss'], **close)
    for rank in (first, second):
        torch.testing.assert_close(
            rank['gradients'], whole['gradients'], **close)
    assert all(g.abs().max() > 1e-4 for name, g in whole['gradients'].items()
               if name.endswith('weight'))
