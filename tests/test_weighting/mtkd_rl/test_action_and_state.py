"""Sources of the action, their mixture, and the standardised state."""

import numpy as np
import pytest
import torch

from mmkd_rl.tasks import ClassificationTask, FeatureTask
from mmkd_rl.weighting.base import confidence
from mmkd_rl.weighting.mtkd_rl import (
    RunningStandardizer,
    StateBuilder,
    WeightPolicy,
    divergence,
    mix,
)
from tests.toy import random_batch, spec

TASK = ClassificationTask()


def test_confidence_is_equation_9():
    ce = torch.tensor([[0.1, 2., 0.7], [3., 0., 0.]])
    weights = confidence(ce)
    for i in range(2):
        e = np.exp(ce[i].double().numpy())
        np.testing.assert_allclose(
            weights[i], (1 - e / e.sum()) / (3 - 1), rtol=1e-6)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights[0].argmax() == 0  # smallest error, largest weight


def test_sources_with_extreme_values_and_one_teacher():
    huge = torch.tensor([[0., 1e4, 20.]])
    for source in (confidence, divergence):
        assert source(huge).isfinite().all()
        assert source(huge).sum() == pytest.approx(1)
        assert torch.equal(source(huge[:, :1]), torch.ones(1, 1))


def test_divergence_favours_the_furthest():
    weights = divergence(torch.tensor([[0., 1., 3.]]))
    torch.testing.assert_close(
        weights, torch.tensor([[0., 1., 3.]]).exp() / (1 + np.e + np.e**3))


def test_mix_sums_to_one():
    g = torch.Generator().manual_seed(0)
    generated = torch.randn(6, 2, 4, generator=g).softmax(-1)
    sources = torch.randn(6, 2, 2, 4, generator=g).softmax(-1)
    balances = torch.randn(2, 3, generator=g).softmax(-1)
    action = mix(generated, sources, balances)
    torch.testing.assert_close(action.sum(-1), torch.ones(6, 2))
    by_hand = (balances[1, 0] * generated[3, 1] +
               balances[1, 1] * sources[3, 1, 0] +
               balances[1, 2] * sources[3, 1, 1])
    torch.testing.assert_close(action[3, 1], by_hand)
    only = torch.tensor([[1., 0., 0.]]).repeat(2, 1)
    torch.testing.assert_close(mix(generated, sources, only), generated)


def test_state_is_equation_5():
    batch, ce = random_batch(size=4, count=2), torch.rand(4, 2)
    builder = StateBuilder([spec(), spec()], TASK)
    state = builder(batch, ce)
    assert builder.size == 2 * (8 + 5 + 3) and builder.sizes == (16, 16)
    second = torch.cat([
        batch.teachers[1].features[0].flatten(1),
        batch.teachers[1].logits[0], ce[:, 1:], batch.gaps.similarity[:, 1:],
        batch.gaps.logit[:, 1:]
    ], 1)
    torch.testing.assert_close(state[:, 16:], second)


def test_state_is_detached_and_float32():
    batch = random_batch()
    for gap in (batch.gaps.logit, batch.gaps.similarity):
        gap.requires_grad_()
    ce = torch.rand(6, 3).bfloat16().requires_grad_()
    state = StateBuilder([spec()] * 3, TASK)(batch, ce)
    assert not state.requires_grad and state.dtype == torch.float32


def test_state_parts_keep_the_equations_order():
    batch, ce = random_batch(count=1), torch.rand(6, 1)
    both = StateBuilder([spec()], TASK, ['ce', 'logit'])(batch, ce)
    torch.testing.assert_close(
        both, torch.cat([batch.teachers[0].logits[0], ce], 1))


@pytest.mark.parametrize('parts, message', [
    ([], 'at least one of'),
    (['ce', 'divergence'], "'divergence'.*logit_loss=None"),
])
def test_bad_state_parts(parts, message):
    with pytest.raises(ValueError, match=f'^state.*{message}'):
        StateBuilder([spec()], TASK, parts, has_logit=False)


def test_parts_that_do_not_exist_are_left_out_by_themselves():
    builder = StateBuilder([spec()], TASK, has_feature=False)
    assert builder.parts == ('feature', 'logit', 'ce', 'divergence')


def test_a_task_without_labels_has_two_parts():
    builder = StateBuilder([spec()], FeatureTask(), has_logit=False)
    assert builder.parts == ('feature', 'similarity')
    batch = random_batch(count=1)
    torch.testing.assert_close(
        builder(batch, torch.empty(6, 0)),
        torch.cat([batch.teachers[0].features[0].flatten(1),
                   batch.gaps.similarity], 1))
    for part in ('logit', 'ce'):
        with pytest.raises(ValueError, match=f"^state: '{part}' does "
                           'not exist with task=FeatureTask'):
            StateBuilder([spec()], FeatureTask(), [part])


def test_standardizer_is_the_identity_before_it_has_seen_anything():
    state = torch.randn(5, 3)
    torch.testing.assert_close(RunningStandardizer(3)(state), state)


def test_standardizer_merges_to_the_statistics_of_all():
    rng = np.random.default_rng(0)
    parts = [
        rng.normal(m, s, (n, 3)) for m, s, n in ((5, .1, 7), (-2, 3., 50),
                                                 (100, 1, 1))
    ]
    standardizer = RunningStandardizer(3)
    for x in parts:
        standardizer.merge(
            torch.tensor(x.mean(0)).float(),
            torch.tensor(x.var(0)).float(), torch.tensor(float(len(x))))
    everything = np.concatenate(parts)
    np.testing.assert_allclose(
        standardizer.mean, everything.mean(0), rtol=1e-4)
    np.testing.assert_allclose(standardizer.var, everything.var(0), rtol=1e-4)
    assert standardizer.count == 58
    scaled = standardizer(torch.from_numpy(everything).float())
    np.testing.assert_allclose(
        scaled,
        np.clip((everything - everything.mean(0)) / everything.std(0), -10,
                10),
        atol=1e-3)


def test_a_constant_input_does_not_divide_by_zero():
    standardizer = RunningStandardizer(1)
    standardizer.merge(torch.ones(1), torch.zeros(1), torch.tensor(4.))
    assert standardizer(torch.ones(2, 1)).abs().max() == 0
    assert standardizer(torch.full((2, 1), 1e9)).max() == 10


@pytest.mark.parametrize('kwargs', [{}, dict(per_teacher=True)])
@pytest.mark.parametrize('count', [1, 3])
def test_policy_starts_uniform(kwargs, count):
    log_w = WeightPolicy([4] * count, **kwargs)(torch.randn(6, 4 * count))
    assert log_w.shape == (6, 2, count)
    torch.testing.assert_close(log_w.exp(), torch.full((6, 2, count),
                                                       1 / count))


def randomized(policy, seed=0):
    torch.manual_seed(seed)
    for head in policy.heads:
        torch.nn.init.normal_(head.weight)
    return policy


def test_one_agent_a_teacher_scores_it_by_its_own_state():
    """The ratio of two teachers' weights does not depend on the state of a
    third; with the joint agent it does."""
    for per_teacher in (True, False):
        policy = randomized(WeightPolicy([4, 4, 4], per_teacher=per_teacher))
        state = torch.randn(5, 12)
        other = state.clone()
        other[:, 8:] += 1
        a, b = policy(state), policy(other)
        same = torch.allclose(a[..., 0] - a[..., 1], b[..., 0] - b[..., 1],
                              atol=1e-5)
        assert same == per_teacher
        assert not torch.allclose(a, b, atol=1e-3)
        torch.testing.assert_close(a.exp().sum(-1), torch.ones(5, 2))


def test_agents_of_teachers_of_different_size():
    policy = randomized(WeightPolicy([2, 5, 3], per_teacher=True))
    state = torch.randn(4, 10)
    score = policy.heads[1](policy.trunks[1](state[:, 2:7]).relu())
    whole = torch.stack([
        h(t(s).relu()) for h, t, s in zip(policy.heads, policy.trunks,
                                          state.split((2, 5, 3), 1))
    ], 2)
    torch.testing.assert_close(whole[:, :, 1], score)
    torch.testing.assert_close(policy(state), whole.log_softmax(-1))


@pytest.mark.parametrize('learnable', [False, True])
def test_a_source_with_balance_zero_stays_out(learnable):
    policy = WeightPolicy([3, 3], balance=(1, 0, 3),
                          learnable_balance=learnable)
    balances = policy.balances()
    torch.testing.assert_close(balances.sum(1), torch.ones(2))
    assert (balances[:, 1] == 0).all()
    if not learnable:
        torch.testing.assert_close(balances[0], torch.tensor([.25, 0, .75]))


@pytest.mark.parametrize('kwargs, message', [
    (dict(balance=(1, 1)), r'balance must be three numbers.*\(1, 1\)'),
    (dict(balance=(1, -1, 1)), 'balance'),
    (dict(balance=(0, 0, 0)), 'balance'),
    (dict(hidden=0), 'hidden must be >= 1, got 0'),
    (dict(balance_lr=0), 'balance_lr must be > 0 or None, got 0'),
])
def test_bad_agents(kwargs, message):
    with pytest.raises(ValueError, match=f'^(WeightPolicy.)?{message}'):
        WeightPolicy([3, 3], **kwargs)
