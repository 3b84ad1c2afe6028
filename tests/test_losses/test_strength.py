"""Weights of terms in the course of a training."""

import math

import pytest
import torch
from mmengine.logging import MessageHub

from mmkd_rl.losses.strength import Strength
from mmkd_rl.options import ConfigError
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.forward_hooks import sum_of_losses
from tests.toy import World, distiller, samples, toy_runner, toy_teachers


@pytest.fixture
def hub(monkeypatch):
    made = MessageHub('strength of a term')
    monkeypatch.setattr(MessageHub, 'get_current_instance', lambda: made)
    return made


@pytest.mark.parametrize('decay, expected', [
    ('none', lambda x: 1.), ('linear', lambda x: 1 - x),
    ('cosine', lambda x: math.cos(math.pi * x / 2)**2)])
def test_a_term_fades(hub, decay, expected):
    strength = Strength(until=.5, decay=decay)
    hub.update_info('max_iters', 100)
    for now in range(100):
        hub.update_info('iter', now)
        assert strength.weight(3.) == pytest.approx(
            3 * expected(now / 50) if now < 50 else 0.)


def test_without_a_hook_that_says_how_far_it_is(hub):
    assert Strength().weight(2.) == 2
    with pytest.raises(RuntimeError, match='RuntimeInfoHook'):
        Strength(until=.5).weight(2.)
    # In evaluation nothing progresses.
    assert Strength(until=.5, decay='linear').eval().weight(2.) == 2


def built(tmp_path, **feature):
    torch.manual_seed(0)
    return MODELS.build(distiller(
        toy_teachers(tmp_path), feature_loss=dict(
            type='FitNetLoss', **feature))).train()


def lengths(model, images, labels):
    """Lengths of the gradients of own and of feature losses at the tapped
    feature, at the present weight."""
    kept = []
    handle = model.backbone.register_forward_hook(
        lambda module, args, out: kept.append(out[-1]))
    losses = model(images, samples(labels), mode='loss')
    handle.remove()
    own = sum_of_losses({
        k: v for k, v in losses.items()
        if k not in ('loss_feature', 'loss_logit')})
    found = [torch.autograd.grad(loss, kept, retain_graph=True)[0].norm()
             for loss in (own, losses['loss_feature'])]
    return [float(v) for v in found], losses


@pytest.mark.parametrize('ratio', [None, 3.])
def test_auto_sets_the_length_of_the_gradient(tmp_path, ratio):
    """On one batch at each step exactly; the weight is logged, is no loss,
    and is the same after a round trip through a checkpoint."""
    images, labels = World(0).batch(16)
    options = dict(loss_weight='auto', **({} if ratio is None else
                                          dict(ratio=ratio)))
    model = built(tmp_path, **options)
    for _ in range(20):
        (own, term), losses = lengths(model, images, labels)
        assert (ratio or 1.) * own == pytest.approx(term, rel=1e-4)
    weight = float(losses['weight_feature'])
    total, logged = model.parse_losses(losses)
    assert logged['weight_feature'] == weight
    torch.testing.assert_close(
        total, sum(v for k, v in losses.items() if 'loss' in k))
    strength = model.distillation.terms[1].strength
    assert not strength.is_measuring
    # Later batches do not change it.
    lengths(model, 5 * images, labels)
    assert strength.weight(1.) == pytest.approx(weight)
    again = built(tmp_path, **options)
    assert again.distillation.terms[1].weight == 1.
    again.load_state_dict(model.state_dict())
    assert again.distillation.terms[1].weight == pytest.approx(weight)


def test_auto_does_not_depend_on_the_scale_of_a_term(tmp_path):
    """A term a hundred times as large gets a hundredth of the weight."""
    images, labels = World(0).batch(16)
    weights = []
    for factor in (1., 100.):
        model = built(tmp_path, loss_weight='auto')
        term = model.distillation.terms[1]
        compare = term.compare
        term.compare = lambda *args, f=factor, c=compare: f * c(*args)
        lengths(model, images, labels)
        weights.append(term.weight)
    assert weights[0] == pytest.approx(100 * weights[1], rel=1e-4)


def test_in_a_runner(tmp_path):
    """The weight of the last iteration is that of its share of the
    training."""
    seen = []
    model = distiller(
        toy_teachers(tmp_path),
        feature_loss=dict(type='FitNetLoss', until=.5, decay='linear'))
    runner = toy_runner(tmp_path / 'run', model, epochs=2)
    term = runner.model.distillation.terms[1]
    compare = term.compare
    term.compare = lambda *args: (seen.append(term.weight), compare(*args))[1]
    runner.train()
    count = runner.max_iters
    assert seen == pytest.approx(
        [5 * max(0., 1 - 2 * i / count) for i in range(count)])


def test_auto_passes_over_a_batch_without_labels(tmp_path):
    """The own loss depends on the feature, and its gradient is zero; a loss
    that does not depend on it is refused."""
    images, labels = World(0).batch(16)
    model = built(tmp_path, loss_weight='auto')
    strength = model.distillation.terms[1].strength
    feature = model.backbone(images)[-1]
    term = feature.square().mean()
    strength.measure(0 * feature.sum(), term, [feature], 'x')
    assert strength.batches == 0
    strength.measure(feature.sum(), term, [feature], 'x')
    assert strength.batches == 1
    with pytest.raises(ConfigError, match='does not depend on them'):
        strength.measure(model.head.fc.weight.sum(), term, [feature], 'x')


@pytest.mark.parametrize('weighting', [
    'AverageWeighting', 'CAMKD', 'AEKD', 'AMTMLKD', 'MMKD', 'MTKDRL'])
def test_any_strategy_with_a_term_that_fades(tmp_path, weighting):
    """Strategies that read the terms' weights are built before there is a
    training."""
    hooks = dict(MTKDRL='AgentAlternationHook', MMKD='MetaWeightingHook')
    runner = toy_runner(
        tmp_path / 'run', distiller(
            toy_teachers(tmp_path), weighting=dict(type=weighting),
            logit_loss=dict(type='KDLoss', until=.5),
            feature_loss=dict(type='FitNetLoss', until=.5, decay='cosine')),
        hooks=[dict(type=hooks[weighting])] if weighting in hooks else [])
    runner.train()
    assert runner.model.distillation.terms[0].weight == 0.


@pytest.mark.parametrize('options, message', [
    (dict(ratio=2.), "model.feature_loss.ratio: this is of .*'auto'"),
    (dict(loss_weight='Auto'), r"loss_weight must be a number.*or 'auto'"),
    (dict(standardise=True), "it takes .*'standardize', 'until', 'decay'"),
    (dict(ratio=-1., loss_weight='auto'), 'model.feature_loss.ratio must be'),
    (dict(until=0.), 'model.feature_loss.until must be'),
    (dict(until=2.), 'model.feature_loss.until must be'),
    (dict(decay='slow'), "model.feature_loss.decay must be .*'linear'"),
    (dict(loss_weight='much'), 'model.feature_loss.loss_weight must be')])
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, **options)
