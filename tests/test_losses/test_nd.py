"""ND compared with its definition, and the source of its class means."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmkd_rl.losses import NDLoss
from tests.test_losses.steps import (
    build,
    check_with_strategies,
    of_features,
    step,
)
from tests.toy import spec

WIDTHS = (4, 6, 4)
TARGETS = torch.tensor([0, 2, 2, 1, 3, 0])


def make(means='dataset', widths=WIDTHS, classes=4):
    loss = NDLoss(means=means)
    loss.build(
        spec(classes=classes),
        [spec(f't{i}', shape=(d, 2, 2)) for i, d in enumerate(widths)])
    return loss


def random_pairs(size=6, widths=WIDTHS, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(size, d, 2, 2, generator=g) + .3,
             torch.randn(size, d, 2, 2, generator=g) + .3) for d in widths]


def random_means(widths=WIDTHS, classes=4):
    g = torch.Generator().manual_seed(9)
    return [torch.randn(classes, d, generator=g) for d in widths]


def reference(pairs, means, targets):
    """ND by loops in float64."""
    loss = np.zeros((len(targets), len(pairs)))
    for m, (student, teacher) in enumerate(pairs):
        for i, y in enumerate(targets.tolist()):
            s = student[i].double().numpy().mean((1, 2))
            t = teacher[i].double().numpy().mean((1, 2))
            e = means[m][y].double().numpy()
            if not e.any():
                continue
            e = e / np.linalg.norm(e)
            loss[i, m] = 1 - s @ e / max(
                np.linalg.norm(s), np.linalg.norm(t))
    return torch.tensor(loss).float()


def test_against_the_definition():
    """With teachers of the same and of other widths, and a class without
    images."""
    pairs, means = random_pairs(), random_means()
    counts = torch.tensor([5., 1., 2., 0.])
    loss = make()
    loss.set_means([m * counts[:, None] for m in means], counts)
    for m in means:
        m[3] = 0
    got = of_features(loss, pairs, TARGETS)
    assert got.shape == (6, 3)
    torch.testing.assert_close(got, reference(pairs, means, TARGETS))
    assert not got[4].any() and got[:4].all()


def ready(**kwargs):
    loss = make(**kwargs)
    loss.set_means(random_means(), torch.ones(4))
    return loss


def test_what_it_is_at_rest_with():
    """ND is exactly zero for a student's feature in the direction of the
    class mean that is at least as long as the teacher's, and positive if it is
    shorter or has another direction."""
    loss = ready()
    e = torch.nn.functional.normalize(random_means()[0], dim=1)[TARGETS]
    others = random_pairs()[1:]
    teacher = 2 * torch.nn.functional.normalize(torch.randn(6, 4), dim=1)

    def cost(s):
        return of_features(loss, [(s, teacher), *others], TARGETS)[:, 0]

    for length in (2., 3., 10.):
        s = (length * e).requires_grad_()
        value = cost(s)
        assert value.abs().max() < 1e-6
        value.sum().backward()
        assert s.grad.abs().max() < (1e-6 if length > 2 else 1)
    torch.testing.assert_close(cost(.5 * e), torch.full((6, ), .75))
    torch.testing.assert_close(cost(-4 * e), torch.full((6, ), 2.))
    # a longer student: only the direction counts
    s = random_pairs()[0][0].mean((2, 3))
    s = 5 * torch.nn.functional.normalize(s, dim=1)
    torch.testing.assert_close(cost(s), cost(7 * s))
    # a shorter one gains by growing along the direction
    s = (.1 * e).requires_grad_()
    cost(s).sum().backward()
    torch.testing.assert_close(s.grad, -e / 2)


def test_labels_that_are_probabilities_give_the_mean_under_them():
    loss = make()
    loss.set_means(random_means(), torch.tensor([1., 0., 1., 1.]))
    loss.mean0[1] = loss.mean1[1] = loss.mean2[1] = 0
    pairs = random_pairs()
    y = torch.rand(6, 4).softmax(1)
    expected = sum(
        y[:, c:c + 1] * of_features(loss, pairs, torch.full((6, ), c))
        for c in range(4))
    torch.testing.assert_close(of_features(loss, pairs, y), expected)
    hard = torch.nn.functional.one_hot(TARGETS, 4).float()
    torch.testing.assert_close(of_features(loss, pairs, hard),
                               of_features(loss, pairs, TARGETS))


@pytest.mark.parametrize('soft', [False, True])
def test_running_means_are_means_of_all_that_came(soft):
    loss = make('running').train()
    seen, labels = [], []
    for seed in range(3):
        pairs = random_pairs(seed=seed)
        y = torch.rand(6, 4).softmax(1) if soft else TARGETS.roll(seed) % 3
        got = of_features(loss, pairs, y)
        seen.append([t.mean((2, 3)).double() for _, t in pairs])
        labels.append(y.double() if soft else
                      torch.nn.functional.one_hot(y, 4).double())
    y = torch.cat(labels)
    means = []
    for m in range(3):
        t = torch.cat([batch[m] for batch in seen])
        means.append((y.T @ t) / y.sum(0).clamp_min(1e-9)[:, None])
        torch.testing.assert_close(
            loss.get_buffer(f'mean{m}').double(), means[m], rtol=1e-4,
            atol=1e-6)
    torch.testing.assert_close(loss.counts.double(), y.sum(0))
    if not soft:  # the means include this batch
        torch.testing.assert_close(
            got, reference(pairs, means, labels[-1].argmax(1)))


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_running_means_keep_nothing_that_is_not_finite(soft, value):
    """An image with such a feature is ignored for all teachers."""
    y = torch.rand(6, 4).softmax(1) if soft else TARGETS
    pairs = random_pairs()
    rest = make('running').train()
    of_features(rest, [(s[1:], t[1:]) for s, t in pairs], y[1:])
    loss = make('running').train()
    pairs[1][1][0, 3, 1, 1] = value
    of_features(loss, pairs, y)
    for name in ('counts', 'mean0', 'mean1', 'mean2'):
        torch.testing.assert_close(loss.get_buffer(name),
                                   rest.get_buffer(name))


def test_running_means_are_of_all_processes(monkeypatch):
    """Simulates another process with the same images three times."""
    alone, many = make('running').train(), make('running').train()
    of_features(alone, random_pairs(), TARGETS)
    monkeypatch.setattr('mmengine.dist.all_reduce',
                        lambda tensor: tensor.mul_(4))
    of_features(many, random_pairs(), TARGETS)
    assert torch.equal(many.counts, 4 * alone.counts)
    torch.testing.assert_close(many.mean1, alone.mean1)


def test_a_second_look_and_evaluation_add_nothing():
    loss = make('running').train()
    of_features(loss, random_pairs(), TARGETS)
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    with torch.no_grad():
        of_features(loss, random_pairs(seed=1), TARGETS)
    value = of_features(loss.eval(), random_pairs(seed=1),
                        TARGETS.clamp_max(0))
    assert value.isfinite().all()
    for name, buffer in loss.state_dict().items():
        assert torch.equal(buffer, before[name]), name


def test_running_means_without_images_give_zero():
    loss = make('running').eval()
    got = of_features(loss, random_pairs(), TARGETS)
    assert got.shape == (6, 3) and not got.any()


def test_features_of_zero():
    loss = ready()
    pairs = [(torch.zeros(6, d).requires_grad_(), torch.zeros(6, d))
             for d in WIDTHS]
    value = of_features(loss, pairs, TARGETS)
    torch.testing.assert_close(value, torch.ones(6, 3))
    value.sum().backward()
    assert all(s.grad.isfinite().all() for s, _ in pairs)


def test_one_number_per_sample():
    loss = ready()
    pairs = random_pairs()
    whole = of_features(loss, pairs, TARGETS)
    for i in range(6):
        one = of_features(loss, [(s[i:i + 1], t[i:i + 1]) for s, t in pairs],
                          TARGETS[i:i + 1])
        torch.testing.assert_close(one[0], whole[i])


def test_half_precision_is_computed_in_float32():
    loss = ready()
    half = [(s.bfloat16(), t.bfloat16()) for s, t in random_pairs()]
    y = torch.rand(6, 4).softmax(1)
    expected = of_features(loss, [(s.float(), t.float()) for s, t in half], y)
    with torch.autocast('cpu', torch.bfloat16):
        got = of_features(loss, half, y)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@pytest.mark.parametrize('kwargs', [
    dict(), dict(size=1, logit_loss=None), dict(count=1),
    dict(dtype=torch.bfloat16)
])
def test_with_strategies(kwargs):
    check_with_strategies(
        feature_loss=dict(type='NDLoss', means='running'), **kwargs)


def test_means_go_into_checkpoints():
    first, second = (build(feature_loss=dict(type='NDLoss', means='running'))
                     for _ in range(2))
    step(first)
    second.load_state_dict(first.state_dict())
    (_, mine), (_, theirs) = (m.distillation.terms for m in (first, second))
    assert theirs.counts.sum() == 6
    assert torch.equal(mine.mean1, theirs.mean1)
    assert theirs.mean0.shape == (5, 5)
    assert theirs.mean1.shape == (5, 7)


def test_bad_inputs():
    with pytest.raises(ValueError, match='one label an image.*there are none'):
        of_features(ready(), random_pairs())
    with pytest.raises(ValueError, match='one label an image.*got many'):
        of_features(ready(), random_pairs(), torch.zeros(6, 2, 2))
    with pytest.raises(ValueError, match=r'call build\(student, teachers\)'):
        of_features(NDLoss(), random_pairs(), TARGETS)
    with pytest.raises(ValueError, match="ClassMeanHook.*means='running'"):
        of_features(make(), random_pairs(), TARGETS)
    each_pixel = replace(spec(classes=4), logits=((4, 2, 2), ))
    with pytest.raises(ValueError, match='each pixel has one; use FitNetLoss'):
        NDLoss().build(each_pixel, [spec('t0')])
    with pytest.raises(ValueError, match='ClassMeanHook'):
        step(build(feature_loss=dict(type='NDLoss')))


@pytest.mark.parametrize('kwargs, value', [
    (dict(means='epoch'), "means must be one of 'dataset', 'running', "
     "got 'epoch'"),
    (dict(loss_weight=-1), 'loss_weight must be >= 0, got -1'),
])
def test_bad_arguments(kwargs, value):
    with pytest.raises(ValueError, match=f'Loss.{value}'):
        NDLoss(**kwargs)
