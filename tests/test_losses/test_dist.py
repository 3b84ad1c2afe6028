"""DIST compared with the paper's batch loss; properties of correlations."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from mmkd_rl.losses import DISTLoss
from tests.test_losses.steps import (
    check_with_strategies,
    of_logits,
    random_logits,
)


def published(student, teacher, beta, gamma, temperature, eps):
    """The paper's loss of a batch, by loops in float64."""
    q, p = (softmax(np.asarray(z, np.float64) / temperature, 1)
            for z in (student, teacher))

    def rho(a, b):
        a, b = a - a.mean(), b - b.mean()
        size = np.sqrt((a * a).sum() * (b * b).sum())
        return 0. if size == 0 else (a * b).sum() / (size + eps)

    rows = np.mean([rho(q[i], p[i]) for i in range(len(q))])
    columns = np.mean([rho(q[:, c], p[:, c]) for c in range(q.shape[1])])
    return temperature**2 * (beta * (1 - rows) + gamma * (1 - columns))


@pytest.mark.parametrize('beta, gamma, temperature, eps', [
    (2., 2., 1., 1e-8), (1., 0., 4., 0.), (0., 1., 4., 0.), (.5, 3., .5, .01)
])
@pytest.mark.parametrize('size', [2, 6])
def test_the_batch_mean_is_the_published_loss(beta, gamma, temperature, eps,
                                              size):
    student, teachers = random_logits(size)
    loss = of_logits(DISTLoss(beta, gamma, temperature, eps), student,
                     teachers)
    assert loss.shape == (size, 4)
    assert (loss > 0).all()  # of each sample
    for m in range(4):
        assert loss[:, m].mean() == pytest.approx(
            published(student, teachers[:, m], beta, gamma, temperature, eps),
            rel=1e-4)


def test_the_gradient_is_that_of_the_correlations():
    """Compared with autograd of 1 - rho in float64."""
    student, teachers = random_logits(dtype=torch.float64)
    z = student.float().requires_grad_()
    of_logits(DISTLoss(2., 3., eps=0.), z,
              teachers.float()).mean(0).sum().backward()
    x = student.requires_grad_()
    total = 0.
    for m in range(4):
        q, p = x.softmax(1), teachers[:, m].softmax(1)
        for dim, weight in ((1, 2.), (0, 3.)):
            a = q - q.mean(dim, keepdim=True)
            b = p - p.mean(dim, keepdim=True)
            total = total + weight * (
                1 - torch.cosine_similarity(a, b, dim=dim).mean())
    total.backward()
    torch.testing.assert_close(z.grad.double(), x.grad, rtol=1e-3, atol=1e-5)


def test_a_student_that_is_the_teacher_is_at_rest():
    """The gradient is zero for any weights of samples, as each sample's share
    is at its minimum."""
    student, _ = random_logits()
    z = student.clone().requires_grad_()
    loss = of_logits(DISTLoss(), z, student.unsqueeze(1))
    assert loss.abs().max() < 1e-4
    (torch.arange(6.)[:, None] * loss).sum().backward()
    assert z.grad.abs().max() < 1e-5


def test_predictions_may_be_scaled_and_shifted():
    """rho(u, v) = rho(a u + b, v), a > 0. With two classes all softmax rows of
    the same order are related by such a map."""
    z = torch.tensor([[2., -1.], [.3, .1], [5., 4.]])
    other = torch.tensor([[.1, 0.], [7., -7.], [1., .5]])
    assert of_logits(DISTLoss(gamma=0., eps=0.), z,
                     other[:, None]).max() < 1e-5
    flipped = of_logits(DISTLoss(beta=1., gamma=0., eps=0.), z,
                        other.flip(1)[:, None])
    torch.testing.assert_close(flipped, torch.full((3, 1), 2.))
    # rows: teacher = (student + uniform) / 2, with its logarithm as logits
    student, _ = random_logits()
    mixed = (.5 * student.softmax(1) + .5 / 5).log()
    assert of_logits(DISTLoss(eps=0.), student, mixed[:, None]).max() < 1e-5
    assert (of_logits(DISTLoss(eps=0.), student,
                      2 * mixed[:, None]) > 1e-4).all()


def test_one_sample_has_no_columns():
    student, teachers = random_logits(1)
    loss = of_logits(DISTLoss(gamma=7.), student, teachers)
    assert torch.equal(loss, of_logits(DISTLoss(gamma=0.), student, teachers))
    assert loss.shape == (1, 4) and (loss > 0).all()


def test_teachers_do_not_see_each_other():
    student, teachers = random_logits()
    whole = of_logits(DISTLoss(), student, teachers)
    for m in range(4):
        torch.testing.assert_close(
            of_logits(DISTLoss(), student, teachers[:, m:m + 1])[:, 0],
            whole[:, m])


@pytest.mark.parametrize('eps', [0., 1e-8])
@pytest.mark.parametrize('who', ['student', 'teacher', 'both'])
def test_zero_variance_counts_as_no_correlation(who, eps):
    """A row and all columns are constant: rho = 0, without gradient."""
    student, teachers = random_logits(4, 2, 1000)
    if who != 'teacher':
        student = torch.zeros_like(student)
    if who != 'student':
        teachers = torch.ones_like(teachers)
    z = student.requires_grad_()
    loss = of_logits(DISTLoss(2., 3., eps=eps), z, teachers)
    torch.testing.assert_close(loss, torch.full((4, 2), 5.))
    loss.sum().backward()
    assert not z.grad.any()


def test_a_column_that_is_constant_alone():
    """One constant column among others, compared with the formula."""
    student, teachers = random_logits(5, 1, 3)
    p = student.softmax(1)
    p = torch.stack([torch.full((5, ), .2), .8 * p[:, 0] / (p[:, 0] + p[:, 1]),
                     .8 * p[:, 1] / (p[:, 0] + p[:, 1])], 1)
    z = p.log().requires_grad_()
    loss = of_logits(DISTLoss(0., 1., eps=0.), z, teachers)
    q, t = p.double().numpy(), softmax(teachers[:, 0].double().numpy(), 1)
    rhos = [0.] + [np.corrcoef(q[:, c], t[:, c])[0, 1] for c in (1, 2)]
    assert float(loss.detach().mean()) == pytest.approx(
        1 - np.mean(rhos), rel=1e-4)
    loss.sum().backward()
    assert z.grad.isfinite().all()


def test_pixels_are_samples_of_the_columns():
    """For maps of logits the batch mean equals the loss of a batch of all
    pixels."""
    g = torch.Generator().manual_seed(1)
    student = torch.randn(2, 5, 2, 3, generator=g)
    teachers = torch.randn(2, 3, 5, 2, 3, generator=g)
    loss = of_logits(DISTLoss(), student, teachers)
    assert loss.shape == (2, 3)
    flat = of_logits(DISTLoss(), student.movedim(1, 3).reshape(12, 5),
                     teachers.movedim(2, 4).movedim(1, 3).reshape(12, 3, 5))
    torch.testing.assert_close(loss, flat.view(2, 6, 3).mean(1))
    # then a single image has columns of several values
    one = of_logits(DISTLoss(beta=0.), student[:1], teachers[:1])
    assert (one > 0).all()


def test_extreme_logits_stay_finite():
    z = torch.tensor([[1e4, -1e4, 0.], [0., 1e4, 0.]], requires_grad=True)
    for eps in (0., 1e-8):
        loss = of_logits(DISTLoss(eps=eps), z, -z.detach().unsqueeze(1))
        loss.sum().backward()
        assert loss.isfinite().all() and z.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    student, teachers = (x.bfloat16() for x in random_logits())
    loss = of_logits(DISTLoss(), student, teachers)
    assert loss.dtype == torch.float32
    assert torch.equal(
        loss, of_logits(DISTLoss(), student.float(), teachers.float()))


@pytest.mark.parametrize('kwargs', [
    dict(), dict(size=1, feature_loss=None), dict(count=1),
    dict(dtype=torch.bfloat16)
])
def test_with_strategies(kwargs):
    check_with_strategies(logit_loss=dict(type='DISTLoss'), **kwargs)


@pytest.mark.parametrize('kwargs, value', [
    (dict(temperature=0), 'temperature must be > 0, got 0'),
    (dict(beta=-1), 'beta must be >= 0, got -1'),
    (dict(gamma=-2), 'gamma must be >= 0, got -2'),
    (dict(eps=-1e-8), 'eps must be >= 0, got -1e-08'),
    (dict(loss_weight=-1), 'loss_weight must be >= 0, got -1'),
])
def test_bad_arguments(kwargs, value):
    with pytest.raises(ValueError, match=f'Loss.{value}'):
        DISTLoss(**kwargs)
