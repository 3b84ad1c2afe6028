"""KD and FitNet compared with PyTorch's functions; their properties."""

import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.losses import FitNetLoss, KDLoss
from tests.test_losses.steps import of_features, of_logits


@pytest.fixture
def logits():
    g = torch.Generator().manual_seed(0)
    return (3 * torch.randn(6, 5, generator=g),
            3 * torch.randn(6, 4, 5, generator=g))


@pytest.mark.parametrize('temperature', [0.5, 1., 4.])
def test_kd_is_torchs_kl_divergence(logits, temperature):
    student, teachers = logits
    loss = of_logits(KDLoss(temperature), student, teachers)
    assert loss.shape == (6, 4)
    for m in range(4):
        reference = temperature**2 * F.kl_div(
            F.log_softmax(student / temperature, 1),
            F.softmax(teachers[:, m] / temperature, 1),
            reduction='none').sum(1)
        torch.testing.assert_close(loss[:, m], reference)


def test_a_teacher_that_is_the_student_costs_nothing(logits):
    student = logits[0].requires_grad_()
    loss = of_logits(KDLoss(), student, student.detach().unsqueeze(1))
    assert loss.abs().max() < 1e-5
    loss.sum().backward()
    assert student.grad.abs().max() < 1e-6
    other = of_logits(KDLoss(), student, logits[1])
    assert (other > 1e-3).all()
    # a constant has no effect on the softmax
    torch.testing.assert_close(
        of_logits(KDLoss(), student + 7, logits[1]), other)


def test_t_squared_keeps_the_gradients_size(logits):
    """For large T, T^2 dKL/dz -> (z_S - z_m, both centred) / C for any T."""
    student, teachers = logits
    teacher = teachers[:, 0]
    centred = (student - student.mean(1, keepdim=True)) - (
        teacher - teacher.mean(1, keepdim=True))
    for temperature in (100., 300.):
        z = student.clone().requires_grad_()
        of_logits(KDLoss(temperature), z,
                  teacher.unsqueeze(1)).sum().backward()
        torch.testing.assert_close(
            z.grad, centred / 5, rtol=0.05, atol=0.01)


def test_one_number_per_sample(logits):
    """The number of a sample and teacher does not depend on the others."""
    student, teachers = logits
    pairs = [(student, teachers[:, m]) for m in range(4)]
    for whole, alone in (
        (of_logits(KDLoss(), student, teachers), lambda i, m: of_logits(
            KDLoss(), student[i:i + 1], teachers[i:i + 1, m:m + 1])),
        (of_features(FitNetLoss(), pairs), lambda i, m: of_features(
            FitNetLoss(), [(student[i:i + 1], teachers[i:i + 1, m])]))):
        for i in range(6):
            for m in range(4):  # B = 1, M = 1
                one = alone(i, m)
                assert one.shape == (1, 1)
                torch.testing.assert_close(one[0, 0], whole[i, m])


def test_bfloat16_is_computed_in_float32(logits):
    student, teachers = (x.bfloat16() for x in logits)
    loss = of_logits(KDLoss(), student, teachers)
    assert loss.dtype == torch.float32
    assert torch.equal(
        loss, of_logits(KDLoss(), student.float(), teachers.float()))
    pairs = [(student, teachers[:, 0])]
    loss = of_features(FitNetLoss(), pairs)
    assert loss.dtype == torch.float32
    assert torch.equal(
        loss,
        of_features(FitNetLoss(), [(a.float(), b.float()) for a, b in pairs]))


def test_extreme_logits_stay_finite():
    z = torch.tensor([[1e4, -1e4, 0.]], requires_grad=True)
    loss = of_logits(KDLoss(1.), z, -z.detach().unsqueeze(1))
    loss.sum().backward()
    assert loss.isfinite().all() and z.grad.isfinite().all()


@pytest.mark.parametrize('shape', [(3, ), (3, 4, 5)])
def test_fitnet_is_the_mean_squared_error(shape):
    g = torch.Generator().manual_seed(1)
    pairs = [(torch.randn(6, *shape, generator=g),
              torch.randn(6, *shape, generator=g)) for _ in range(2)]
    loss = of_features(FitNetLoss(), pairs)
    assert loss.shape == (6, 2)
    for m, (a, b) in enumerate(pairs):
        for i in range(6):
            torch.testing.assert_close(loss[i, m], F.mse_loss(a[i], b[i]))
    assert not of_features(FitNetLoss(), [(a, a) for a, _ in pairs]).any()


def test_fitnets_gradient():
    """The gradient is 2 (r - f) / n, also if r and f are equal."""
    r, f = torch.rand(3, 4, 2, 2), torch.rand(3, 4, 2, 2)
    r[1] = f[1]
    r.requires_grad_()
    of_features(FitNetLoss(), [(r, f)]).sum().backward()
    torch.testing.assert_close(r.grad, 2 * (r - f).detach() / 16)


def test_the_weight_is_left_to_the_distiller(logits):
    assert torch.equal(of_logits(KDLoss(loss_weight=0.5), *logits),
                       of_logits(KDLoss(), *logits))


@pytest.mark.parametrize('kwargs, value', [
    (dict(temperature=-4.), r'temperature must be > 0, got -4\.0'),
    (dict(temperature=0), 'temperature must be > 0, got 0'),
    (dict(loss_weight=-1), 'loss_weight must be >= 0, got -1'),
])
def test_bad_arguments(kwargs, value):
    with pytest.raises(ValueError, match=f'Loss.{value}'):
        KDLoss(**kwargs)


def test_bad_feature_weight():
    with pytest.raises(ValueError, match='FitNetLoss.loss_weight.*got -5'):
        FitNetLoss(loss_weight=-5)
