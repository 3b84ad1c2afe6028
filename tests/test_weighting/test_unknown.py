"""Strategies and the agent with classes that a teacher does not know, and for
tasks without labels."""

import pytest
import torch

from mmkd_rl.registry import MODELS
from mmkd_rl.weighting.mtkd_rl import normalize_reward
from tests.toy import (
    World,
    distiller,
    samples,
    toy_teachers,
)

from .steps import remember


def with_few(tmp_path):
    """Three teachers, of which the second knows only the classes 0 and 1."""
    teachers = toy_teachers(tmp_path, 3)
    teachers[1]['class_map'] = {0: 0, 1: 1}
    return teachers


@pytest.mark.parametrize('how', ['minmax', 'standard'])
@pytest.mark.parametrize('options', [
    dict(), dict(reward=dict(feature='own')),
    dict(reward=dict(type='DistanceReward'), reward_time='after'),
    dict(reward=dict(type='LikelihoodReward')),
    dict(reward=dict(type='HeldOutReward'))])
def test_on_unknown_classes_the_agent_learns_nothing_of_a_teacher(
        tmp_path, options, how):
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(
            with_few(tmp_path),
            weighting=dict(
                type='MTKDRL', updater=dict(normalization=how),
                **options))).train()
    strategy = model.distillation.weighting
    found = []
    strategy.register_forward_hook(lambda _, args, out: found.append(args[0]))
    images, _ = World().batch(12)
    labels = torch.tensor([0, 1, 2, 3] * 3)
    model(images, samples(labels), mode='loss')
    step = model.distillation.last_step
    after = step.seen and model.distillation.forward_after_step(
        model, step.seen)
    strategy.learner.remember(step.weights.record, after)
    (transition, ) = strategy.learner.history
    got = normalize_reward(transition.reward, how)
    raw = normalize_reward(
        strategy.reward(after or found[0], step.weights.record[1]), how)
    if got.ndim == 3:  # features are distilled
        assert torch.equal(got[:, 1], raw[:, 1])
        got, raw = got[:, 0], raw[:, 0]
    unknown = labels > 1
    torch.testing.assert_close(
        got[unknown, 1], torch.zeros(6), atol=1e-5, rtol=0)
    assert raw[unknown, 1].abs().max() > .05
    for m in (0, 2):
        assert got[unknown, m].abs().max() > .01
    assert got[~unknown, 1].abs().max() > .01


def test_the_steps_weights_are_those_that_were_used(tmp_path):
    """The step's record for the reward: a teacher that does not know the class
    has no weight for its logits, for any action of the agent."""
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(
            with_few(tmp_path),
            weighting=dict(
                type='MTKDRL', reward=dict(type='BatchReward'),
                updater=dict(type='BCEUpdater')))).train()
    strategy = model.distillation.weighting
    found = []
    strategy.register_forward_hook(lambda _, args, out: found.append(args[0]))
    images, _ = World().batch(12)
    labels = torch.tensor([0, 1, 2, 3] * 3)
    for _ in range(2):  # equal weights, then the agent's
        losses = model(images, samples(labels), mode='loss')
        used = model.distillation.last_step.weights
        transition, step, _ = used.record
        torch.testing.assert_close(step.weights[:, 0], used.logit)
        torch.testing.assert_close(step.weights[:, 1], used.feature)
        assert not step.weights[labels > 1, 0, 1].any()
        assert (step.weights[labels > 1, 1, 1] > .05).all()
        # the loss in the reward is that of the student's training
        gaps = found[-1].gaps
        own = step.ce + (used.logit * gaps.logit).sum(1) + 5 * (
            used.feature * gaps.feature).sum(1)
        torch.testing.assert_close(own.mean(), sum(losses.values()))
        torch.testing.assert_close(
            transition.reward[:, 0],
            ((own.mean() - own) / own.std(correction=0)).clamp(0, 1).detach())
        remember(model)
        model.distillation.weighting.learner.update()


@pytest.mark.parametrize('kind', ['likelihood', 'margin'])
def test_likelihood_is_of_the_teachers_own_logits(tmp_path, kind):
    """Also with a class map: logits of unknown classes are not replaced by
    those of the student."""
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(
            with_few(tmp_path),
            weighting=dict(
                type='MTKDRL',
                reward=dict(type='LikelihoodReward', kind=kind)))).train()
    images, labels = World().batch(12)
    found = []
    model.distillation.weighting.register_forward_hook(
        lambda _, args, out: found.append(args[0]))
    for _ in range(2):
        model(images, samples(labels), mode='loss')
        remember(model)
        torch.nn.init.normal_(model.head.fc.weight)
    one, two = model.distillation.weighting.learner.history
    assert (found[0].student.logits[0] -
            found[1].student.logits[0]).abs().max() > .1
    assert not torch.equal(found[0].gaps.logit, found[1].gaps.logit)
    assert torch.equal(one.reward, two.reward)
    assert one.reward.std() > .01


@pytest.mark.parametrize('kind', ['CAMKD', 'EBKD', 'MMKD'])
def test_strategies_that_need_labels_are_refused_in_words(tmp_path, kind):
    cfg = distiller(
        toy_teachers(tmp_path),
        task=dict(type='FeatureTask'),
        weighting=dict(type=kind))
    with pytest.raises(
            ValueError, match=rf'model.weighting: {kind} needs labels and '
            r'class scores, which FeatureTask does not give; use a weighting '
            r'of a type in '
            r"\['AEKD', 'AMTMLKD', 'AverageWeighting', 'MTKDRL'\]"):
        MODELS.build(cfg)
    for fits in ('AEKD', 'AMTMLKD', 'AverageWeighting'):
        cfg['weighting'] = dict(type=fits)
        model = MODELS.build(cfg)
        images, labels = World().batch(4)
        losses = model(images, samples(labels), mode='loss')
        assert losses['loss_feature'] > 0


def test_the_default_reward_is_refused_without_labels(tmp_path):
    with pytest.raises(
            ValueError, match='model.weighting.reward: AgreementReward reads '
            'class scores and labels, and FeatureTask has none; use '
            r"reward=dict\(type='GradientReward'\)"):
        MODELS.build(
            distiller(
                toy_teachers(tmp_path),
                task=dict(type='FeatureTask'),
                weighting=dict(type='MTKDRL')))


@pytest.mark.parametrize('reward_time', ['before', 'after'])
def test_the_agent_learns_without_labels(tmp_path, reward_time):
    """A teacher that is closer to the student has a higher reward and gains
    weight."""
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(
            toy_teachers(tmp_path, 3),
            task=dict(type='FeatureTask'),
            weighting=dict(
                type='MTKDRL', reward=dict(type='DistanceReward'),
                reward_time=reward_time, agent=dict(balance=(1, 0, 0)),
                updater=dict(optimizer=dict(type='Adam', lr=.01))))).train()
    strategy = model.distillation.weighting
    assert strategy.build_state.parts == ('feature', 'similarity')
    # the last teacher's projector is far from the student's feature
    far = model.distillation.terms[0].projectors[2][0].layers[0]
    torch.nn.init.constant_(far.bias, 3.)
    world = World()
    for turn in range(3):
        for _ in range(4):
            images, labels = world.batch(8)
            model(images, samples(labels), mode='loss')
            step = model.distillation.last_step
            after = step.seen and model.distillation.forward_after_step(
                model, step.seen)
            strategy.learner.remember(step.weights.record, after)
        *_, last = strategy.learner.history
        assert (last.reward.argmin(1) == 2).all()
        weights = step.weights.feature
        torch.testing.assert_close(weights.sum(1), torch.ones(8))
        assert turn or torch.equal(weights, torch.full((8, 3), 1 / 3))
        strategy.learner.update()
    assert (weights[:, 2] < .3).all()


@pytest.mark.parametrize('kind', ['AEKD', 'MMKD'])
def test_relations_alone_say_nothing_of_each_teacher(tmp_path, kind):
    cfg = distiller(
        toy_teachers(tmp_path),
        losses=[dict(type='DistanceRelationLoss')],
        weighting=dict(type=kind))
    with pytest.raises(
            ValueError, match=f'model.weighting: {kind} needs terms that '
            "compare.*model.losses has none; add .*'KDLoss'.*Average"):
        MODELS.build(cfg)
    cfg['weighting'] = dict(type='AverageWeighting')
    images, labels = World().batch(4)
    losses = MODELS.build(cfg)(images, samples(labels), mode='loss')
    assert set(losses) == {'loss_student', 'loss_distance'}
