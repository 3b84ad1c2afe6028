"""The label-free reward: the gradients of the ordinary backward pass."""

import logging

import pytest
import torch

from mmkd_rl.registry import MODELS
from mmkd_rl.utils.gradients import float32_gradients
from tests.toy import World, classifier, distiller, samples, toy_teachers


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def built(tmp_path, reward, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(distiller(
        toy_teachers(tmp_path, 3), student=classifier(8, hidden=6),
        weighting=dict(type='MTKDRL', reward=reward), **kwargs)).train()


def step(model, factor=1., updates=0):
    """A step on one batch; the transition that is added to the history."""
    learner = model.distillation.weighting.learner
    learner.updates = updates
    images, labels = World(0).batch(16)
    losses = model(images, samples(labels), mode='loss')
    total, _ = model.parse_losses(losses)
    (factor * total).backward()
    last = model.distillation.last_step
    learner.remember(last.weights.record,
                     scale=None if last.scale is None else last.scale.value)
    *_, transition = learner.history
    return transition


@pytest.mark.parametrize('updates', [0, 1])
@pytest.mark.parametrize('terms', [
    {}, dict(logit_loss=None), dict(feature_loss=None)])
def test_it_is_the_agreement_that_a_formula_gives(tmp_path, terms, updates):
    """For a classifier with KD, at equal and at other weights: the own loss
    is the cross entropy, and the distillation's share is subtracted
    exactly."""
    model = built(tmp_path, dict(type='GradientReward'), **terms)
    found = step(model, updates=updates).reward
    if 'logit_loss' in terms:
        # A formula for features alone: both kinds, logits without weight.
        terms = dict(logit_loss=dict(type='KDLoss', loss_weight=0.))
    own = 'feature_loss' not in terms
    formula = built(tmp_path, dict(
        type='AgreementReward', feature='own' if own else 'same'), **terms)
    expected = step(formula, updates=updates).reward
    if 'loss_weight' in terms.get('logit_loss', ()):
        expected = expected[:, 1]
    assert found.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


def test_the_scale_of_the_loss_does_not_matter(tmp_path):
    """Mixed precision and accumulated gradients scale it."""
    rewards = [step(built(tmp_path, dict(type='GradientReward')), f).reward
               for f in (1., 1024., .25)]
    for other in rewards[1:]:
        torch.testing.assert_close(other, rewards[0], rtol=1e-2, atol=1e-4)


def test_gradients_that_overflowed_give_no_reward(tmp_path):
    transition = step(built(tmp_path, dict(type='GradientReward')),
                      float('inf'))
    assert transition.reward.eq(0).all()


def test_other_gradients_in_between_are_not_taken_for_it(tmp_path):
    """An automatic weight takes gradients at the same tensors."""
    plain = step(built(tmp_path, dict(type='GradientReward'),
                       feature_loss=dict(type='FitNetLoss'))).reward
    model = built(tmp_path, dict(type='GradientReward'), feature_loss=dict(
        type='FitNetLoss', loss_weight='auto'))
    torch.testing.assert_close(step(model).reward, plain,
                               rtol=1e-2, atol=1e-4)


def test_a_step_without_backward_pass_is_left_out(tmp_path):
    model = built(tmp_path, dict(type='GradientReward'))
    learner = model.distillation.weighting.learner
    images, labels = World(0).batch(16)
    for grad in (torch.no_grad(), torch.enable_grad()):
        with grad:
            model(images, samples(labels), mode='loss')
        learner.remember(model.distillation.last_step.weights.record)
    assert not len(learner.history)


def test_it_works_before_the_update_only(tmp_path):
    with pytest.raises(ValueError, match="reward_time='before' only"):
        MODELS.build(distiller(
            toy_teachers(tmp_path), weighting=dict(
                type='MTKDRL', reward_time='after',
                reward=dict(type='GradientReward'))))


def test_gradients_do_not_underflow_in_half_precision():
    """Those of large maps are smaller than float16's smallest number."""
    x = torch.randn(2, 3, 4, 4).half().requires_grad_()
    size = 1e-8
    gap_BM = size * x.float().flatten(1).sum(1, keepdim=True)
    found, = float32_gradients([gap_BM], [x], [torch.ones(2, 1)])
    torch.testing.assert_close(found, torch.full((2, 3, 4, 4), size),
                               rtol=2e-2, atol=0)
    head = torch.ones(3, 3).half()
    z = torch.einsum('bchw,cd->bdhw', x, head)
    back, = float32_gradients((z, ), (x, ), (found, ))
    torch.testing.assert_close(back, 3 * found, rtol=2e-2, atol=0)
