"""Strategies: rows sum to one, and MTKD-RL's phases."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger

from mmkd_rl.agent import confidence, normalize_reward
from mmkd_rl.records import Gaps
from mmkd_rl.registry import MODELS, WEIGHTINGS, build
from tests.toy import (
    World,
    batch,
    context,
    distiller,
    random_batch,
    samples,
    toy_teachers,
)


def strategy(count=3, ctx=None, **cfg):
    torch.manual_seed(0)
    made = build(
        WEIGHTINGS,
        dict(dict(type='MTKDRL'), **cfg),
        'model.weighting',
        context=ctx or context(count))
    made.attended = True
    return made.train()


def updated(made, batch):
    """After the warm-up."""
    made.remember(made(batch).record)
    made.learner.update()
    return made


def remember(model):
    """What the hook does after each iteration."""
    distillation = model.distillation
    distillation.weighting.remember(distillation.last_step.weights.record)


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
        made.remember(weights.record)
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
    made.remember(weights.record)
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
    made.remember(made(random_batch()).record)
    assert len(made.learner.history) == 0


def test_history_is_bounded():
    made = strategy(history_bytes=3000)
    for seed in range(50):
        made.remember(made(random_batch(seed=seed)).record)
        assert made.learner.history.nbytes <= 3000
    assert len(made.learner.history) > 1


def test_huge_states_stay_finite_in_the_half_precision_history():
    batch = random_batch()
    big, = batch.teachers[0].logits
    big *= 1e6
    made = updated(strategy(), batch)
    assert made(batch).logit.isfinite().all()
    assert all(p.isfinite().all() for p in made.learner.policy.parameters())


@pytest.mark.parametrize('cfg, error, message', [
    (dict(type='MTKDLR'), ValueError,
     "model.weighting.type='MTKDLR'.*'MTKDRL'"),
    (dict(scale='papers'), ValueError,
     "weighting.scale must be one of.*'paper'.*'papers'"),
    (dict(reward_time='later'), ValueError,
     "weighting.reward_time.*'after'.*'later'"),
    (dict(reward=dict(type='Distance')), ValueError,
     "weighting.reward.type='Distance'.*'DistanceReward'"),
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
     'BCEUpdater takes one reward.*AgreementReward gives.*BatchReward'),
    (dict(reward=dict(type='ImprovementReward')), ValueError,
     "ImprovementReward.*reward_time='after' only, got 'before'"),
    (dict(reward=dict(feature='own'), reward_time='after'), ValueError,
     "AgreementReward.*reward_time='before' only, got 'after'"),
    (dict(warmup=1), TypeError, "model.weighting.*'warmup'"),
    (dict(agent=dict(hiden=2)), TypeError,
     r"weighting.agent: WeightPolicy has no option 'hiden'; it takes "
     r"\['hidden', .*'balance_lr'\]; did you mean 'hidden'\?"),
    (dict(agent=4), TypeError, 'weighting.agent must be a dict, got 4'),
    (dict(updater='PPO'), TypeError, "weighting.updater must be.*'PPO'"),
    (dict(updater=dict(optimizer=dict(type='Adam', lrr=1))), TypeError,
     "weighting.updater: .*'lrr'"),
    (dict(updater=dict(_delete_=True, type='PPO')), TypeError,
     'in weighting.updater replaces'),
])
def test_bad_configs(cfg, error, message):
    with pytest.raises(error, match=message):
        strategy(**cfg)


def test_inherited_options_are_named():
    """All that a user can write, nothing that only the code can."""
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
    made.attended = False
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
    """Compared by hand; the student has batch norm, whose statistics must
    not notice the second look."""
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
    strategy.remember(step.weights.record,
                      model.distillation.forward_after_step(model, step.seen))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    (transition, ) = strategy.learner.history

    # The same by another way: a normal forward pass in training mode.
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
    # ... and not the one of before
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
    assert model.distillation.last_step.seen is None  # nobody asked
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


def with_few(tmp_path):
    """Three teachers, the second of which knows the classes 0 and 1."""
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
    strategy.remember(step.weights.record, after)
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
    """What the reward is told of the step: a teacher that does not know the
    class had no weight for its logits, whatever the agent's action was."""
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
        transition, step = used.record
        torch.testing.assert_close(step.weights[:, 0], used.logit)
        torch.testing.assert_close(step.weights[:, 1], used.feature)
        assert not step.weights[labels > 1, 0, 1].any()
        assert (step.weights[labels > 1, 1, 1] > .05).all()
        # the loss in the reward is the one that the student was trained with
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
    """Also with a class map: what a teacher does not know is not filled in
    with what the student believes."""
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
            ValueError, match=rf'model.weighting.type={kind} looks at labels '
            r'and class scores, and FeatureTask has none; use a weighting of '
            r"a type in \['AEKD', 'AMTMLKD', 'AverageWeighting', 'MTKDRL'\]"):
        MODELS.build(cfg)
    for fits in ('AEKD', 'AMTMLKD', 'AverageWeighting'):
        cfg['weighting'] = dict(type=fits)
        model = MODELS.build(cfg)
        images, labels = World().batch(4)
        losses = model(images, samples(labels), mode='loss')
        assert losses['loss_feature'] > 0


def test_the_default_reward_is_refused_without_labels(tmp_path):
    with pytest.raises(
            ValueError, match='model.weighting.reward=AgreementReward reads '
            'class scores and labels, and FeatureTask has none; use '
            r"reward=dict\(type='DistanceReward'\)"):
        MODELS.build(
            distiller(
                toy_teachers(tmp_path),
                task=dict(type='FeatureTask'),
                weighting=dict(type='MTKDRL')))


@pytest.mark.parametrize('reward_time', ['before', 'after'])
def test_the_agent_learns_without_labels(tmp_path, reward_time):
    """Who is nearer earns more and gains weight."""
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
    # the last teacher's projector is far off
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
            strategy.remember(step.weights.record, after)
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
            ValueError, match=f'weighting.type={kind} looks at terms that '
            "compare.*model.losses has none; add .*'KDLoss'.*Average"):
        MODELS.build(cfg)
    cfg['weighting'] = dict(type='AverageWeighting')
    images, labels = World().batch(4)
    losses = MODELS.build(cfg)(images, samples(labels), mode='loss')
    assert set(losses) == {'loss_student', 'loss_distance'}


@pytest.mark.parametrize('updater', ['PolicyGradient', 'DPG', 'DDPG', 'PPO'])
def test_the_global_generator_is_left_alone(updater):
    made = strategy(updater=dict(type=updater))
    before = torch.get_rng_state()
    for seed in range(2):
        updated(made, random_batch(seed=seed))
    assert torch.equal(torch.get_rng_state(), before)
