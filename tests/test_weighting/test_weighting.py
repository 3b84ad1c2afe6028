"""Weights of all strategies sum to one; phases of MTKD-RL."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper

from mmkd_rl.records import Gaps
from mmkd_rl.registry import MODELS, WEIGHTINGS, build
from mmkd_rl.weighting import Student
from mmkd_rl.weighting.base import confidence
from tests.toy import (
    World,
    batch,
    context,
    distiller,
    random_batch,
    samples,
    toy_teachers,
)

from .steps import remember


def strategy(count=3, ctx=None, **cfg):
    torch.manual_seed(0)
    made = build(
        WEIGHTINGS,
        dict(dict(type='MTKDRL'), **cfg),
        'model.weighting',
        context=ctx or context(count))
    if made.learner is not None:
        made.learner.has_hook = True
    return made.train()


def updated(made, batch):
    """A strategy after the warm-up."""
    made.learner.remember(made(batch).record)
    made.learner.update()
    return made


def ones(x):
    return torch.ones(len(x))


def test_average():
    weights = strategy(4, type='AverageWeighting')(random_batch(count=4))
    assert torch.equal(weights.logit, torch.full((6, 4), .25))
    assert torch.equal(weights.feature, weights.logit)


def test_equal_until_the_first_update_then_not():
    made, batch = strategy(), random_batch()
    for seed in range(3):
        weights = made(random_batch(seed=seed))
        made.learner.remember(weights.record)
        assert torch.equal(weights.logit, torch.full((6, 3), 1 / 3))
        assert torch.equal(weights.feature, torch.full((6, 3), 1 / 3))
    assert len(made.learner.history) == 3
    made.learner.update()
    weights = made(batch)
    for w in (weights.logit, weights.feature):
        torch.testing.assert_close(w.sum(1), ones(w))
        assert (w > 0).all() and (w - 1 / 3).abs().max() > 0.01
        assert not w.requires_grad
    assert not torch.allclose(weights.logit, weights.feature, atol=1e-3)


def test_the_action_is_equations_13_and_14():
    batch = random_batch()
    made = updated(
        strategy(agent=dict(balance=(2, 1, 1), learnable_balance=False)),
        batch)
    ce = torch.stack([
        torch.nn.functional.cross_entropy(
            t.logits[0], batch.truth.targets, reduction='none')
        for t in batch.teachers
    ], 1)
    generated = made.learner.policy(made.build_state(batch, ce)).exp()
    weights = made(batch)
    torch.testing.assert_close(
        weights.logit, .5 * generated[:, 0] + .25 * confidence(ce) +
        .25 * batch.gaps.logit.softmax(1))
    torch.testing.assert_close(
        weights.feature, .5 * generated[:, 1] + .25 * confidence(ce) +
        .25 * batch.gaps.similarity.softmax(1))


def test_papers_scale_is_one_each_in_the_warm_up():
    made, batch = strategy(scale='paper'), random_batch()
    weights = made(batch)
    assert torch.equal(weights.logit, torch.ones(6, 3))
    made.learner.remember(weights.record)
    made.learner.update()
    torch.testing.assert_close(made(batch).logit.sum(1), torch.ones(6))


@pytest.mark.parametrize('count, size', [(1, 6), (3, 1), (1, 1)])
@pytest.mark.parametrize('reward', ['AgreementReward', 'DistanceReward'])
def test_one_teacher_and_one_sample(count, size, reward):
    made = strategy(count, reward=dict(type=reward))
    batch = random_batch(size=size, count=count)
    for seed in range(3):
        updated(made, random_batch(size=size, count=count, seed=seed))
    weights = made(batch)
    for w in (weights.logit, weights.feature):
        assert w.shape == (size, count) and w.isfinite().all()
        torch.testing.assert_close(w.sum(1), ones(w))
    assert all(p.isfinite().all() for p in made.learner.policy.parameters())


@pytest.mark.parametrize('off', ['logit', 'feature'])
def test_one_kind_of_distillation_alone(off):
    ctx = context(**{f'{off}_weight': None})
    gaps = random_batch().gaps
    gaps = Gaps(None, gaps.feature, gaps.similarity) if off == 'logit' else \
        Gaps(gaps.logit, None, None)
    batch = random_batch(gaps=gaps)
    weights = updated(strategy(ctx=ctx), batch)(batch)
    torch.testing.assert_close(weights.logit.sum(1), torch.ones(6))


def test_in_evaluation_nothing_is_remembered():
    made = strategy().eval()
    made.learner.remember(made(random_batch()).record)
    assert len(made.learner.history) == 0


def test_history_is_bounded():
    made = strategy(history_bytes=3000)
    for seed in range(50):
        made.learner.remember(made(random_batch(seed=seed)).record)
        assert made.learner.history.nbytes <= 3000
    assert len(made.learner.history) > 1


@pytest.mark.parametrize('reward_time', ['before', 'after'])
def test_rewards_are_computed_for_batches_that_are_kept(
        tmp_path, monkeypatch, reward_time):
    """Of 40 steps in later intervals as many as fit; others neither compute a
    reward nor run the student again."""
    weighting = dict(type='MTKDRL', reward_time=reward_time)
    model = MODELS.build(distiller(toy_teachers(tmp_path, 2),
                                   weighting=weighting)).train()
    distillation = model.distillation
    learner = distillation.weighting.learner
    looks, earned = [], []
    monkeypatch.setattr(
        distillation, 'forward_after_step',
        lambda *args, look=distillation.forward_after_step:
        looks.append(1) or look(*args))
    monkeypatch.setattr(
        learner, 'earned', lambda *args, earn=learner.earned:
        earned.append(1) or earn(*args))
    images, labels = World(0).batch(8)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=.01))
    student = Student(model, distillation, wrapper)
    room = 0
    for _ in range(3):
        looks.clear(), earned.clear()
        for _ in range(40):
            model.parse_losses(model(
                images, samples(labels), mode='loss'))[0].backward()
            learner.observe(distillation.last_step, student)
            learner.history.max_bytes = room = room or \
                4 * learner.history.nbytes
        assert len(learner.history) == 3
        learner.update(student)
    assert len(earned) == 3
    assert len(looks) == 3 * (reward_time == 'after')


def test_huge_states_stay_finite_in_the_half_precision_history():
    batch = random_batch()
    big, = batch.teachers[0].logits
    big *= 1e6
    made = updated(strategy(), batch)
    assert made(batch).logit.isfinite().all()
    assert all(p.isfinite().all() for p in made.learner.policy.parameters())


@pytest.mark.parametrize('cfg, error, message', [
    (dict(type='MTKDLR'), ValueError,
     "model.weighting.type: 'MTKDLR'.*'MTKDRL'"),
    (dict(scale='papers'), ValueError,
     "weighting.scale must be one of.*'paper'.*'papers'"),
    (dict(reward_time='later'), ValueError,
     "weighting.reward_time.*'after'.*'later'"),
    (dict(reward=dict(type='Distance')), ValueError,
     "weighting.reward.type: 'Distance'.*'DistanceReward'"),
    (dict(updater=dict(type='Policy')), ValueError, 'weighting.updater.type'),
    (dict(updater=dict(type='PolicyGradient', lr=1)), TypeError,
     "weighting.updater.*'lr'"),
    (dict(agent=dict(balance=(1, 1))), ValueError, 'weighting.agent.balance'),
    (dict(state=[]), ValueError, 'weighting.state must name'),
    (dict(state=['cosine']), ValueError, "weighting.state.*'cosine'"),
    (dict(history_bytes=0), ValueError, 'weighting.history_bytes'),
    (dict(reward=dict(type='BatchReward')), ValueError,
     'BatchReward is the same for all.*PolicyGradient would.*BCEUpdater'),
    (dict(updater=dict(type='BCEUpdater')), ValueError,
     'BCEUpdater needs a single reward.*AgreementReward gives.*BatchReward'),
    (dict(reward=dict(type='ImprovementReward')), ValueError,
     "ImprovementReward.*reward_time='after' only, got 'before'"),
    (dict(reward=dict(feature='own'), reward_time='after'), ValueError,
     "AgreementReward.*reward_time='before' only, got 'after'"),
    (dict(warmup=1), TypeError, "model.weighting.*'warmup'"),
    (dict(agent=dict(hiden=2)), TypeError,
     r"weighting.agent: WeightPolicy has no option 'hiden'; it takes "
     r"\['hidden', .*'balance_lr'\]; did you mean 'hidden'\?"),
    (dict(agent=4), TypeError,
     'weighting.agent must be a dict or None, got 4'),
    (dict(updater='PPO'), TypeError, "weighting.updater must be.*'PPO'"),
    (dict(updater=dict(optimizer=dict(type='Adam', lrr=1))), TypeError,
     "weighting.updater.optimizer: .*'lrr'"),
    (dict(updater=dict(_delete_=True, type='PPO')), TypeError,
     'model.weighting.updater._delete_: replaces'),
])
def test_bad_configs(cfg, error, message):
    with pytest.raises(error, match=message):
        strategy(**cfg)


def test_inherited_options_are_named():
    """The options include all that a config can set, and no others."""
    with pytest.raises(TypeError, match='weighting.updater: PPO has no opt'
                       "ion 'clp'.*did you mean 'clip'") as error:
        strategy(updater=dict(type='PPO', clp=.2))
    assert "'value_hidden'" in str(error.value)
    assert "'normalization'" in str(error.value)
    for hidden in ('kwargs', 'policy', 'extra'):
        assert f"'{hidden}" not in str(error.value)
    strategy(updater=dict(type='DDPG', tau=.1, noise=.1, entropy_weight=.2))


def test_warns_once_without_the_hook(caplog):
    made = strategy()
    made.learner.has_hook = False
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, logger=logger.name):
            for _ in range(3):
                made(random_batch())
    finally:
        logger.removeHandler(caplog.handler)
    warned = [r for r in caplog.records if 'AgentAlternationHook' in
              r.getMessage()]
    assert len(warned) == 1


def test_reward_after_the_update_is_of_the_updated_student(tmp_path):
    """The reward is computed by hand. The student has batch norm, whose
    statistics must not change in the second forward pass."""
    torch.manual_seed(0)
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmkd_rl.CifarResNet', depth=8),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64))
    model = MODELS.build(
        distiller(
            toy_teachers(tmp_path),
            student=student,
            weighting=dict(type='MTKDRL', reward_time='after',
                           reward=dict(type='DistanceReward')))).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = World().batch(8)
    losses = model(images, samples(labels), mode='loss')
    before = losses['loss_student'].item()
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    strategy, step = model.distillation.weighting, model.distillation.last_step
    strategy.learner.remember(step.weights.record,
                      model.distillation.forward_after_step(model, step.seen))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    (transition, ) = strategy.learner.history

    # The same in another way: a normal forward pass in training mode.
    teachers = model.distillation.teachers(batch(images, labels))
    feature, = model.backbone(images)
    logits = model.head(model.neck((feature, )))
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction='none')
    again = ce.mean().item()
    expected = torch.empty(8, 2)
    _, feature_term = model.distillation.terms
    for m, t in enumerate(teachers):
        p, q = ((z / 4).log_softmax(1) for z in (t.logits[0], logits))
        kd = 16 * (p.exp() * (p - q)).sum(1)
        projected = feature_term.projectors[m][0].layers(
            feature.mean((2, 3), keepdim=True))
        mse = (projected - t.features[0]).square().flatten(1).mean(1)
        expected[:, m] = -ce - kd - 5 * mse
    torch.testing.assert_close(
        transition.reward, expected, rtol=1e-4, atol=1e-4)
    # ... and not the one before the update
    assert abs(again - before) > 1e-3


def test_reward_before_is_of_the_student_that_made_the_loss(tmp_path):
    torch.manual_seed(0)
    model = MODELS.build(
        distiller(
            toy_teachers(tmp_path),
            weighting=dict(
                type='MTKDRL', reward=dict(type='DistanceReward')))).train()
    images, labels = World().batch(8)
    losses = model(images, samples(labels), mode='loss')
    assert model.distillation.last_step.seen is None  # not requested
    remember(model)
    (transition, ) = model.distillation.weighting.learner.history
    # with equal weights, minus the mean reward is the loss of Eq. (2)
    torch.testing.assert_close(-transition.reward.mean(),
                               sum(losses.values()).detach())


def test_the_agent_moves_and_is_shared_by_copies(tmp_path):
    import copy
    model = MODELS.build(
        distiller(toy_teachers(tmp_path), weighting=dict(type='MTKDRL')))
    images, labels = World().batch(8)
    model(images, samples(labels), mode='loss')
    remember(model)
    learner = model.distillation.weighting.learner
    learner.update()
    twin = copy.deepcopy(model)
    assert twin.distillation.weighting.learner is learner
    own = {id(p) for p in model.parameters()}
    policy = learner.policy
    assert not own & {id(p) for p in policy.parameters()}
    assert not any('weighting' in n for n in model.state_dict())
    model.double()
    assert all(p.dtype == torch.float64 for p in policy.parameters())
    losses = model(images.double(), samples(labels), mode='loss')
    remember(model)
    learner.update()
    assert all(v.isfinite() for v in losses.values())


@pytest.mark.parametrize('updater', ['PolicyGradient', 'DPG', 'DDPG', 'PPO'])
def test_the_global_generator_is_left_alone(updater):
    made = strategy(updater=dict(type=updater))
    before = torch.get_rng_state()
    for seed in range(2):
        updated(made, random_batch(seed=seed))
    assert torch.equal(torch.get_rng_state(), before)
