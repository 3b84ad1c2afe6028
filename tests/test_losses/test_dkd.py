"""DKD compared with its definition in float64, and its relation to KD."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from mmkd_rl.losses import DKDLoss, KDLoss
from tests.test_losses.steps import (
    check_with_strategies,
    of_logits,
    random_logits,
)

TARGETS = torch.tensor([0, 4, 2, 2, 1, 3])


def reference(student, teachers, targets, alpha, beta, temperature):
    """Eq. 7 by loops in float64."""
    loss = np.zeros(teachers.shape[:2])
    for i, y in enumerate(targets.tolist()):
        q = softmax(student[i].double().numpy() / temperature)
        others = [c for c in range(len(q)) if c != y]
        for m in range(loss.shape[1]):
            p = softmax(teachers[i, m].double().numpy() / temperature)
            tckd = rel_entr([p[y], p[others].sum()],
                            [q[y], q[others].sum()]).sum()
            nckd = rel_entr(p[others] / p[others].sum(),
                            q[others] / q[others].sum()).sum()
            loss[i, m] = temperature**2 * (alpha * tckd + beta * nckd)
    return torch.tensor(loss).float()


@pytest.mark.parametrize('args', [(1., 8., 4.), (.5, 0., 1.), (0., 2., .5)])
@pytest.mark.parametrize('classes', [2, 5])
def test_against_the_definition(args, classes):
    student, teachers = random_logits(classes=classes)
    targets = TARGETS % classes
    torch.testing.assert_close(
        of_logits(DKDLoss(*args), student, teachers, targets),
        reference(student, teachers, targets, *args), rtol=1e-4, atol=1e-5)


def test_kd_is_a_case_of_it():
    """Eq. 6: KL = TCKD + (1 - p_y) NCKD, p_y the teacher's."""
    student, teachers = random_logits()
    tckd = of_logits(DKDLoss(1., 0.), student, teachers, TARGETS)
    nckd = of_logits(DKDLoss(0., 1.), student, teachers, TARGETS)
    p = (teachers / 4).softmax(2)[torch.arange(6), :, TARGETS]
    torch.testing.assert_close(tckd + (1 - p) * nckd,
                               of_logits(KDLoss(), student, teachers))


def test_nckd_does_not_see_the_true_class():
    student, teachers = random_logits()
    loss = DKDLoss(alpha=0.)
    before = of_logits(loss, student, teachers, TARGETS)
    z = student.clone()
    z[torch.arange(6), TARGETS] += 20
    z.requires_grad_()
    after = of_logits(loss, z, teachers, TARGETS)
    torch.testing.assert_close(after, before)
    after.sum().backward()
    assert not z.grad[torch.arange(6), TARGETS].any()
    # and TCKD does not see how the others share what is left
    tckd = DKDLoss(beta=0.)
    mixed = student.clone()
    for i, y in enumerate(TARGETS.tolist()):
        others = [c for c in range(5) if c != y]
        mixed[i, others] = student[i, others].flip(0)
    torch.testing.assert_close(
        of_logits(tckd, mixed, teachers, TARGETS),
        of_logits(tckd, student, teachers, TARGETS))


def test_a_student_that_is_the_teacher_is_at_rest():
    student, _ = random_logits()
    z = student.clone().requires_grad_()
    loss = of_logits(DKDLoss(), z, student.unsqueeze(1), TARGETS)
    assert loss.abs().max() < 1e-4
    loss.sum().backward()
    assert z.grad.abs().max() < 1e-5


def test_one_class_has_nothing_to_say():
    z = torch.randn(3, 1).requires_grad_()
    loss = of_logits(DKDLoss(), z, torch.randn(3, 2, 1), torch.zeros(3).long())
    assert loss.shape == (3, 2) and not loss.any()
    loss.sum().backward()
    assert not z.grad.any()


def test_labels_that_are_probabilities_count_as_the_most_probable():
    student, teachers = random_logits()
    soft = torch.full((6, 5), .1)
    soft[torch.arange(6), TARGETS] = .6
    assert torch.equal(of_logits(DKDLoss(), student, teachers, soft),
                       of_logits(DKDLoss(), student, teachers, TARGETS))


def test_one_number_per_sample():
    student, teachers = random_logits()
    whole = of_logits(DKDLoss(), student, teachers, TARGETS)
    for i in range(6):
        for m in range(4):  # B = 1, M = 1
            one = of_logits(DKDLoss(), student[i:i + 1],
                            teachers[i:i + 1, m:m + 1], TARGETS[i:i + 1])
            assert one.shape == (1, 1)
            torch.testing.assert_close(one[0, 0], whole[i, m])


def test_a_teacher_that_is_sure_keeps_its_digits():
    """p_y = 1 in float32: NCKD computed from probabilities would be 0 / 0."""
    teacher = torch.tensor([[60., 2., 1., 0.]])
    student = torch.tensor([[50., 0., 1., 3.]])
    y = torch.tensor([0])
    loss = of_logits(DKDLoss(temperature=1.), student, teacher[:, None], y)
    torch.testing.assert_close(
        loss, reference(student, teacher[:, None], y, 1., 8., 1.))
    z = torch.tensor([[1e4, -1e4, 0.]], requires_grad=True)
    loss = of_logits(DKDLoss(temperature=1.), z, -z.detach()[:, None], y)
    loss.sum().backward()
    assert loss.isfinite().all() and z.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    student, teachers = (x.bfloat16() for x in random_logits())
    loss = of_logits(DKDLoss(), student, teachers, TARGETS)
    assert loss.dtype == torch.float32
    assert torch.equal(
        loss, of_logits(DKDLoss(), student.float(), teachers.float(), TARGETS))


@pytest.mark.parametrize('kwargs', [
    dict(), dict(size=1, feature_loss=None), dict(count=1),
    dict(dtype=torch.bfloat16)
])
def test_with_strategies(kwargs):
    check_with_strategies(logit_loss=dict(type='DKDLoss'), **kwargs)


def test_bad_inputs():
    student, teachers = random_logits()
    with pytest.raises(ValueError, match='DKDLoss needs the true labels'):
        of_logits(DKDLoss(), student, teachers)
    with pytest.raises(ValueError, match=r'one vector.*\(2, 5, 1, 1\)'):
        of_logits(DKDLoss(), torch.zeros(2, 5, 1, 1),
                  torch.zeros(2, 1, 5, 1, 1), torch.zeros(2, 1, 1))


@pytest.mark.parametrize('kwargs, value', [
    (dict(temperature=-4.), r'temperature must be > 0, got -4\.0'),
    (dict(alpha=-1), 'alpha must be >= 0, got -1'),
    (dict(beta=-2), 'beta must be >= 0, got -2'),
    (dict(loss_weight=-1), 'loss_weight must be >= 0, got -1'),
])
def test_bad_arguments(kwargs, value):
    with pytest.raises(ValueError, match=f'Loss.{value}'):
        DKDLoss(**kwargs)
