"""Both reward rules and all normalisations, compared with slow references."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.records import Gaps
from mmkd_rl.tasks import FeatureTask
from mmkd_rl.weighting.mtkd_rl import (
    AgreementReward,
    BatchReward,
    DistanceReward,
    HeldOutReward,
    ImprovementReward,
    LikelihoodReward,
    normalize_reward,
)
from mmkd_rl.weighting.mtkd_rl.reward import Step, neutral_where_not_distilled
from tests.toy import context, output, random_batch

T = 4.


def kd(z_student, z_teacher):
    """D_m of one sample, computed from the formula."""
    p, q = ((z / T).softmax(0) for z in (z_teacher, z_student))
    return T**2 * (p * (p.log() - q.log())).sum()


@pytest.mark.parametrize('soft', [False, True])
def test_agreement_is_the_first_order_change_of_the_cross_entropy(soft):
    batch = random_batch(size=5, count=3)
    if soft:
        batch = random_batch(
            size=5, targets=torch.rand(5, 5).softmax(1).float())
    reward = AgreementReward(context())(batch)
    assert reward.shape == (5, 3)
    for i in range(5):
        y = batch.truth.targets[i]
        y = y.double() if soft else y
        for m in range(3):
            z = batch.student.logits[0][i].double().requires_grad_()
            z_m = batch.teachers[m].logits[0][i].double()
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
    reward = DistanceReward(
        context(logit_weight=.5, feature_weight=2.))(batch)
    for i in range(6):
        ce = F.cross_entropy(batch.student.logits[0][i],
                             batch.truth.targets[i])
        for m in range(3):
            expected = -ce - 0.5 * batch.gaps.logit[i, m] \
                - 2. * batch.gaps.feature[i, m]
            torch.testing.assert_close(reward[i, m], expected)
    nothing = DistanceReward(context())(
        random_batch(gaps=Gaps(None, None, None)))
    torch.testing.assert_close(nothing, nothing[:, :1].expand(-1, 3))


@pytest.mark.parametrize('rule', [AgreementReward, DistanceReward])
def test_rewards_are_detached(rule):
    batch = random_batch()
    for x in (*batch.student.logits, batch.gaps.logit, batch.gaps.feature):
        x.requires_grad_()
    assert not rule(context())(batch).requires_grad


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
    rewards[2] = 4.  # one sample with the same reward for all teachers
    np.testing.assert_allclose(
        normalize_reward(rewards, how), slow(rewards, how), atol=1e-5)


@pytest.mark.parametrize('how', ['minmax', 'standard'])
@pytest.mark.parametrize('value', [0., 0.1, -3.7, 1e4 / 3, -1e-9])
@pytest.mark.parametrize('count', [1, 3, 7])
def test_equal_rewards_are_zero(how, value, count):
    """Also if rounding makes the mean of equal numbers differ from them."""
    assert not normalize_reward(torch.full((5, count), value), how).any()


@pytest.mark.parametrize('how', ['minmax', 'standard'])
def test_the_units_of_the_reward_do_not_matter(how):
    rewards = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    for scale in (1e-4, 1e4):
        torch.testing.assert_close(
            normalize_reward(rewards * scale + 2 * scale, how),
            normalize_reward(rewards, how), rtol=1e-3, atol=1e-4)


# The first two teachers know all classes but the last sample's. The third
# knows none of the first two samples, a quarter of the third's label.
COVERAGE = torch.tensor([[1., 1., 0.]] * 2 + [[1., 1., .25], [1., 1., 1.],
                                              [0., 0., 0.]])


@pytest.mark.parametrize('how', ['minmax', 'literal', 'standard', 'none'])
def test_who_does_not_know_the_class_earns_neutrally(how):
    """Its reward is the mean of the others, for any computed value, so that
    the mean does not change."""
    raw = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    blind = raw.clone()
    blind[:2, 2] += 100
    blind[4] -= 7
    kept = neutral_where_not_distilled(raw, COVERAGE)
    assert torch.equal(neutral_where_not_distilled(blind, COVERAGE), kept)
    assert torch.equal(kept[3], raw[3]) and not kept[4].any()
    assert torch.equal(kept[:3, :2], raw[:3, :2])
    mean = (raw[2, :2].sum() + .25 * raw[2, 2]) / 2.25
    torch.testing.assert_close(kept[2, 2], .25 * raw[2, 2] + .75 * mean)
    got = normalize_reward(kept, how)
    torch.testing.assert_close(got[:2, 2], got[:2, :2].mean(1))
    if how in ('minmax', 'standard'):
        torch.testing.assert_close(
            got[:2, 2], torch.zeros(2), atol=1e-6, rtol=0)
        assert normalize_reward(raw, how)[:2, 2].abs().min() > .05
    assert (got[:2, :2] - got[:2, 2:]).abs().min() > .01


def test_features_are_distilled_and_rewarded_all_the_same():
    raw = torch.randn(5, 2, 3)
    kept = neutral_where_not_distilled(raw, COVERAGE)
    assert torch.equal(kept[:, 1], raw[:, 1])
    assert torch.equal(kept[:, 0],
                       neutral_where_not_distilled(raw[:, 0], COVERAGE))
    assert neutral_where_not_distilled(raw, None) is raw


def test_an_unknown_class_pulls_at_nothing():
    """grad_z D_m is zero for classes that a teacher does not know, and for the
    others it is that of the divergence among them."""
    known = torch.tensor([True, True, True, False, False])
    ctx = context(2)
    ctx = context(2, teachers=(replace(ctx.teachers[0], known=known),
                               ctx.teachers[1]))
    batch = random_batch(count=2)
    pull, = AgreementReward(ctx).pull(batch)
    torch.testing.assert_close(
        pull[:, 0, 3:], torch.zeros(6, 2), atol=1e-6, rtol=0)
    for i in range(6):
        z = batch.student.logits[0][i].double().requires_grad_()
        q = (z / T).softmax(0)
        p_m = (batch.teachers[0].logits[0][i].double()[:3] / T).softmax(0)
        among = q[:3] / q[:3].sum()
        gap = T**2 * q[:3].sum().detach() * (
            p_m * (p_m.log() - among.log())).sum()
        down, = torch.autograd.grad(gap, z)
        torch.testing.assert_close(pull[i, 0].double(), down, rtol=1e-3,
                                   atol=1e-5)


@pytest.mark.parametrize('rule', [
    AgreementReward, BatchReward, HeldOutReward, ImprovementReward,
    LikelihoodReward])
def test_rules_that_need_labels_are_refused_in_words(rule):
    with pytest.raises(
            ValueError, match=f'^{rule.__name__} reads class '
            'scores and labels, and FeatureTask has none; use .*Gradient'):
        rule(context(task=FeatureTask()))


def test_distance_without_labels_is_what_teachers_differ_by():
    ctx = context(logit_weight=None, task=FeatureTask())
    batch = random_batch(targets=torch.zeros(6, dtype=torch.long))
    batch = replace(batch, gaps=Gaps(None, batch.gaps.feature, None))
    torch.testing.assert_close(
        DistanceReward(ctx)(batch), -5 * batch.gaps.feature)


def step(size=6, count=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    return Step(
        torch.randn(size, 2, count, generator=g).softmax(-1),
        torch.rand(size, generator=g))


def test_the_batch_reward_in_loops():
    batch, done = random_batch(), step()
    loss = []
    for i in range(6):
        total = float(F.cross_entropy(batch.student.logits[0][i],
                                      batch.truth.targets[i]))
        for m in range(3):
            total += 0.5 * float(done.weights[i, 0, m] *
                                 batch.gaps.logit[i, m])
            total += 2. * float(done.weights[i, 1, m] *
                                batch.gaps.feature[i, m])
        loss.append(-total)
    score = np.clip((loss - np.mean(loss)) / np.std(loss), 0, 1)
    reward = BatchReward(
        context(logit_weight=.5, feature_weight=2.))(batch, done)
    for m in range(3):
        np.testing.assert_allclose(reward[:, m], score, atol=1e-5)


def test_held_out_is_agreement_with_the_others_gradients():
    rule = HeldOutReward(context(), memory=4)
    first, batch = random_batch(seed=1), random_batch(seed=2)
    rule(first)
    reward = rule(batch)
    f = np.concatenate([b.student.features[0].flatten(1)
                        for b in (batch, first)])[:10]
    z = np.concatenate([b.student.logits[0] for b in (batch, first)])[:10]
    y = np.concatenate([b.truth.targets for b in (batch, first)])[:10]
    f = f - f.mean(0)
    for i in range(6):
        z_i = torch.from_numpy(z[i]).double().requires_grad_()
        for m in range(3):
            down, = torch.autograd.grad(
                kd(z_i, batch.teachers[m].logits[0][i].double()), z_i)
            expected = 0.
            for j in range(10):
                cos = f[i] @ f[j] / np.linalg.norm(f[i]) / np.linalg.norm(
                    f[j])
                p = np.exp(z[j]) / np.exp(z[j]).sum()
                p[y[j]] -= 1
                if j != i and cos > 0:
                    expected += cos * float(down.numpy() @ p) / 9
            assert float(reward[i, m]) == pytest.approx(expected, abs=1e-5)
    other = HeldOutReward(context(), memory=4)
    other.load_state_dict(rule.state_dict())
    torch.testing.assert_close(other(first), rule(first), rtol=0, atol=0)


def test_likelihood_and_margin():
    batch = random_batch()
    for kind in ('likelihood', 'margin'):
        reward = LikelihoodReward(context(), kind)(batch)
        for i in range(6):
            for m in range(3):
                p = batch.teachers[m].logits[0][i].softmax(0)
                y = int(batch.truth.targets[i])
                rest = torch.cat([p[:y], p[y + 1:]])
                expected = p[y].log() if kind == 'likelihood' else \
                    p[y] - rest.max()
                torch.testing.assert_close(reward[i, m], expected)


@pytest.mark.parametrize('attribution', ['share', 'regression'])
def test_improvement_goes_to_the_teacher_that_it_came_with(attribution):
    batch, done = random_batch(size=200), step(size=200)
    after = F.cross_entropy(batch.student.logits[0], batch.truth.targets,
                            reduction='none')
    done = Step(done.weights, after + done.weights[:, 0, 1])
    reward = ImprovementReward(context(), attribution)(batch, done)
    assert reward.shape == (200, 2, 3)
    assert reward[:, 0].mean(0).argmax() == 1
    if attribution == 'regression':
        # up to a constant of all teachers: weights sum to one
        beta = reward[0, 0] - reward[0, 0].mean()
        torch.testing.assert_close(
            beta, torch.tensor([-1., 2., -1.]) / 3, atol=0.03, rtol=0)


@pytest.mark.parametrize('rule', [
    BatchReward, HeldOutReward, LikelihoodReward, ImprovementReward])
@pytest.mark.parametrize('size, count', [(1, 3), (6, 1), (1, 1)])
def test_small_batches_stay_finite(rule, size, count):
    reward = rule(context(count))(random_batch(size, count),
                                  step(size, count))
    assert reward.shape[0] == size and reward.shape[-1] == count
    assert reward.isfinite().all()


def test_features_own_reward_is_the_agreement_at_the_feature():
    batch = random_batch()
    g = torch.Generator().manual_seed(3)
    with torch.enable_grad():
        feature = torch.randn(6, 4, 2, 2, generator=g, requires_grad=True)
        head = torch.randn(5, 4, generator=g)
        target = torch.randn(6, 3, 4, 2, 2, generator=g)
        logits = feature.mean((2, 3)) @ head.T
        gap = (feature[:, None] - target).square().flatten(2).mean(2)
    batch = random_batch(student=output(logits, feature),
                         gaps=Gaps(batch.gaps.logit, gap, None))
    with torch.no_grad():  # called as by the strategy
        reward = AgreementReward(context(), feature='own')(batch)
    assert reward.shape == (6, 2, 3) and not reward.requires_grad
    torch.testing.assert_close(reward[:, 0],
                               AgreementReward(context())(batch))
    for i in range(6):
        p = logits[i].detach().softmax(0)
        p[batch.truth.targets[i]] -= 1
        down = (p @ head)[:, None, None].expand(4, 2, 2) / 4
        for m in range(3):
            pull = 2 * (feature[i].detach() - target[i, m]) / 16
            torch.testing.assert_close(reward[i, 1, m], (down * pull).sum(),
                                       rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('rule, kwargs, message', [
    (AgreementReward, dict(feature='both'), "must be one of 'same', 'own', "),
    (HeldOutReward, dict(memory=-1), 'memory must be >= 0, got -1'),
    (LikelihoodReward, dict(kind='mean'), "kind must be one of.*'mean'"),
    (ImprovementReward, dict(attribution='all'), "attribution.*'all'"),
    (ImprovementReward, dict(ridge=0), 'ridge must be > 0, got 0'),
])
def test_bad_arguments(rule, kwargs, message):
    with pytest.raises(ValueError, match=rf'^{rule.__name__}\..*{message}'):
        rule(context(), **kwargs)


def test_own_features_need_a_feature_loss():
    with pytest.raises(ValueError, match='feature_loss, which is off'):
        AgreementReward(context(feature_weight=None), feature='own')
