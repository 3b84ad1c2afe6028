import math

import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import entropy

from mmkd_rl.flow.losses import dependency_loss, handover_gap, kl_to_old


def test_dependency_by_hand():
    """-(log 1/2 + log 1/4) / 2 = 3/2 log 2, whatever the teachers' shares."""
    rows = [torch.tensor([.5, .5]).log(), torch.tensor([.25, .7, .05]).log()]
    torch.testing.assert_close(
        dependency_loss(rows), torch.tensor(1.5 * math.log(2)))


def test_dependency_is_zero_only_when_the_student_leans_on_nobody():
    alone = torch.tensor([0., -torch.inf])
    assert dependency_loss([alone, alone]) == 0
    assert dependency_loss([alone, torch.tensor([.9, .1]).log()]) > 0


def test_its_gradient_drives_all_students_weights_to_one():
    w = torch.tensor([[0., 0., 0.], [-3., 2., 1.]], requires_grad=True)
    for _ in range(200):
        loss = dependency_loss(w.log_softmax(1))
        grad, = torch.autograd.grad(loss, w)
        # d/dw_k of -log softmax(w)_0 / L_0 = (p_k - [k = 0]) / L_0
        p = w.detach().softmax(1)
        torch.testing.assert_close(
            grad, (p - torch.tensor([1., 0., 0.])) / 2)
        w.data -= 10 * grad
    assert w.softmax(1)[:, 0].min() > .99


@pytest.mark.parametrize('shape', [(1, 2), (4, 5), (2, 3, 4, 5), (2, 3, 7)])
def test_kl_against_scipy(shape):
    new, old = 3 * torch.randn(shape), 3 * torch.randn(shape)
    rows = [x.movedim(1, -1).reshape(-1, shape[1]).double().numpy()
            for x in (new, old)]
    p, q = (math.e**log_softmax(x, 1) for x in rows)
    want = entropy(p, q, axis=1).mean()
    assert kl_to_old(new, old).item() == pytest.approx(want, rel=1e-5)
    # KL from f_theta to f_theta_old, not the reverse.
    assert kl_to_old(old, new).item() != pytest.approx(want, rel=1e-2)


def test_no_change_of_mind_costs_nothing():
    new = torch.randn(3, 4, requires_grad=True)
    loss = kl_to_old(new, new.detach() + 7.)  # the same distribution
    loss.backward()
    assert loss.abs() < 1e-6
    assert new.grad.abs().max() < 1e-6


def test_kl_is_a_full_precision_number_of_half_precision_logits():
    new, old = torch.randn(2, 4, 10).to(torch.bfloat16)
    want = kl_to_old(new.float(), old.float())
    assert torch.equal(kl_to_old(new, old), want)
    assert want.dtype == torch.float32
    assert kl_to_old(80 * new, -80 * new).isfinite()


def test_handover_by_hand():
    """((1-2)^2 + (2-4)^2) / 2 over the variance of {2, 4}, which is 1."""
    own = torch.tensor([1., 2.])
    assert handover_gap(own, torch.tensor([2., 4.])) == 2.5
    assert handover_gap(own, own) == 0


@pytest.mark.parametrize('shape', [(3, 4), (2, 3, 4, 5), (2, 5, 3), (1, 1)])
def test_handover_is_one_where_the_mean_is_said_and_knows_no_units(shape):
    mixed = 3 * torch.randn(shape, dtype=torch.double) + 2
    own = torch.randn_like(mixed)
    if mixed.numel() > 1:
        assert handover_gap(mixed.mean().expand(shape), mixed).item() == \
            pytest.approx(1)
        torch.testing.assert_close(
            handover_gap(own, mixed), handover_gap(50 * own, 50 * mixed))
    assert handover_gap(own, mixed).isfinite()  # also for a constant feature
    assert handover_gap(own.bfloat16(), mixed.bfloat16()).dtype == \
        torch.float32


def test_handover_moves_the_student_and_not_its_teachers():
    own, mixed = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    handover_gap(own, mixed).backward()
    want = 2 * (own - mixed) / 12 / mixed.var(correction=0)
    torch.testing.assert_close(own.grad, want.detach())
    assert mixed.grad is None
