"""Both reward rules and every normalisation, against slow references."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.agent import AgreementReward, DistanceReward, normalize_reward
from mmkd_rl.records import Gaps
from tests.toy import random_batch

T = 4.


def kd(z_student, z_teacher):
    """D_m of one sample, straight from the formula."""
    p, q = ((z / T).softmax(0) for z in (z_teacher, z_student))
    return T**2 * (p * (p.log() - q.log())).sum()


@pytest.mark.parametrize('soft', [False, True])
def test_agreement_is_the_first_order_change_of_the_cross_entropy(soft):
    batch = random_batch(size=5, count=3)
    if soft:
        batch = random_batch(
            size=5, targets=torch.rand(5, 5).softmax(1).float())
    reward = AgreementReward(1., 5., T)(batch)
    assert reward.shape == (5, 3)
    for i in range(5):
        y = batch.targets[i]
        y = y.double() if soft else y
        for m in range(3):
            z = batch.student.logits[i].double().requires_grad_()
            z_m = batch.teachers[m].logits[i].double()
            down, = torch.autograd.grad(kd(z, z_m), z)
            ce, = torch.autograd.grad(F.cross_entropy(z, y), z)
            assert reward[i, m] == pytest.approx(
                float(ce @ down), rel=1e-3, abs=1e-5)
            step = 1e-5
            with torch.no_grad():
                fallen = F.cross_entropy(z, y) - F.cross_entropy(
                    z - step * down, y)
            assert reward[i, m] == pytest.approx(
                float(fallen) / step, rel=1e-2, abs=1e-4)


def test_distance_is_equation_6():
    batch = random_batch(count=3)
    reward = DistanceReward(0.5, 2., T)(batch)
    for i in range(6):
        ce = F.cross_entropy(batch.student.logits[i], batch.targets[i])
        for m in range(3):
            expected = -ce - 0.5 * batch.gaps.logit[i, m] \
                - 2. * batch.gaps.feature[i, m]
            torch.testing.assert_close(reward[i, m], expected)
    nothing = DistanceReward(1., 5., T)(
        random_batch(gaps=Gaps(None, None, None)))
    torch.testing.assert_close(nothing, nothing[:, :1].expand(-1, 3))


@pytest.mark.parametrize('rule', [AgreementReward, DistanceReward])
def test_rewards_are_detached(rule):
    batch = random_batch()
    for x in (batch.student.logits, batch.gaps.logit, batch.gaps.feature):
        x.requires_grad_()
    assert not rule(1., 5., T)(batch).requires_grad


def slow(rewards, how):
    rows = rewards.double().numpy()
    out = np.zeros_like(rows)
    for i, row in enumerate(rows):
        low, high, mean = min(row), max(row), sum(row) / len(row)
        if how == 'none':
            out[i] = row
        elif how == 'standard':
            out[i] = row - mean
        else:
            scaled = [(r - low) / (high - low) if high > low else 0.
                      for r in row]
            middle = mean if how == 'literal' else sum(scaled) / len(scaled)
            out[i] = [s - middle for s in scaled]
    if how == 'standard':
        spread = np.sqrt((out**2).mean())
        out = out / spread if spread > 0 else out
    return out


@pytest.mark.parametrize('how', ['minmax', 'literal', 'standard', 'none'])
@pytest.mark.parametrize('count', [1, 2, 5])
def test_normalization_against_loops(how, count):
    g = torch.Generator().manual_seed(count)
    rewards = 10 * torch.randn(7, count, generator=g) - 3
    rewards[2] = 4.  # one sample on which all earn the same
    np.testing.assert_allclose(
        normalize_reward(rewards, how), slow(rewards, how), atol=1e-5)


@pytest.mark.parametrize('how', ['minmax', 'standard'])
@pytest.mark.parametrize('value', [0., 0.1, -3.7, 1e4 / 3, -1e-9])
@pytest.mark.parametrize('count', [1, 3, 7])
def test_equal_rewards_are_zero(how, value, count):
    """Also where the mean of equal numbers is not quite that number."""
    assert not normalize_reward(torch.full((5, count), value), how).any()


@pytest.mark.parametrize('how', ['minmax', 'standard'])
def test_the_units_of_the_reward_do_not_matter(how):
    rewards = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    for scale in (1e-4, 1e4):
        torch.testing.assert_close(
            normalize_reward(rewards * scale + 2 * scale, how),
            normalize_reward(rewards, how), rtol=1e-3, atol=1e-4)


def test_unknown_normalization():
    with pytest.raises(ValueError, match="normalization.*'minmax'.*'zscore'"):
        normalize_reward(torch.rand(2, 2), 'zscore')
