"""CA-MKD compared with loops over its formulas; classifiers on features that a
projector has mapped."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mmkd_rl.records import Gaps, Pair
from mmkd_rl.registry import MODELS, WEIGHTINGS, build
from tests.test_weighting.steps import check_training
from tests.toy import (
    CLASSES,
    ToyBackbone,
    World,
    classifier,
    context,
    distiller,
    output,
    random_batch,
    samples,
    toy_teachers,
)


class Classifiers:
    """One linear classifier a teacher, frozen."""

    def __init__(self, count=3):
        torch.manual_seed(1)
        self.layers = [nn.Linear(8, 5) for _ in range(count)]
        for layer in self.layers:
            layer.requires_grad_(False)

    def __call__(self, index, feature):
        return self.layers[index](feature.flatten(1))


def strategy(count=3, ctx=None, **cfg):
    ctx = ctx or context(count, classify=Classifiers(count))
    return build(
        WEIGHTINGS, dict(type='CAMKD', **cfg), 'model.weighting', context=ctx)


def batch_with_pairs(count=3, size=6, **kwargs):
    torch.manual_seed(2)
    return random_batch(
        count=count,
        size=size,
        pairs=tuple((Pair(
            torch.randn(size, 8, 1, 1, requires_grad=True),
            torch.randn(size, 8, 1, 1)), ) for _ in range(count)),
        **kwargs)


def reference(logits, targets):
    """(1 - softmax_m CE_m) / (M - 1), in loops."""
    rows = []
    for b in range(len(targets)):
        exps = []
        for z in logits:
            row = [float(v) for v in z[b].detach().double()]
            total = sum(math.exp(v) for v in row)
            target = [float(c == targets[b]) for c in range(len(row))] \
                if targets.ndim == 1 else targets[b].tolist()
            ce = -sum(y * math.log(math.exp(v) / total)
                      for v, y in zip(row, target))
            exps.append(math.exp(ce))
        rows.append([(1 - e / sum(exps)) / (len(exps) - 1) for e in exps])
    return torch.tensor(rows)


@pytest.mark.parametrize('scale', ['unit', 'paper'])
@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('count', [2, 4])
def test_reference(count, soft, scale):
    made = strategy(count, scale=scale)
    kwargs = dict(targets=torch.rand(6, 5).softmax(1)) if soft else {}
    batch = batch_with_pairs(count, **kwargs)
    weights = made(batch)
    torch.testing.assert_close(
        weights.logit,
        reference([t.logits[0] for t in batch.teachers], batch.truth.targets))
    mapped = [
        made.context.classify(m, pair.student)
        for m, (pair, ) in enumerate(batch.pairs)
    ]
    torch.testing.assert_close(weights.feature,
                               reference(mapped, batch.truth.targets))
    for w in (weights.logit, weights.feature):
        torch.testing.assert_close(w.sum(1), torch.ones(6))
    assert not weights.logit.requires_grad


@pytest.mark.parametrize('detach', [False, True])
def test_the_feature_loss_trains_its_weights_unless_detached(detach):
    made, batch = strategy(detach_feature=detach), batch_with_pairs()
    weights = made(batch)
    assert weights.feature.requires_grad is not detach
    if not detach:
        weights.feature[:, 0].sum().backward()
        # each weight depends on all the teachers' cross entropies
        assert all(pair.student.grad.abs().max() > 0
                   for pair, in batch.pairs)
        assert all(layer.weight.grad is None
                   for layer in made.context.classify.layers)


def test_feature_teacher_gives_the_logits_weights():
    ctx = context()  # no classifiers are needed
    weights = strategy(ctx=ctx, feature='teacher')(batch_with_pairs())
    assert torch.equal(weights.feature, weights.logit)
    ctx = context(feature_weight=None)
    weights = strategy(ctx=ctx)(random_batch())
    assert torch.equal(weights.feature, weights.logit)


def test_features_alone():
    gaps = Gaps(None, torch.rand(6, 3), None)
    ctx = context(logit_weight=None, classify=Classifiers())
    weights = strategy(ctx=ctx)(batch_with_pairs(gaps=gaps))
    assert (weights.feature - weights.logit).abs().max() > .01


def test_identical_teachers_weigh_the_same():
    z = torch.randn(6, 5)
    batch = batch_with_pairs(
        teachers=(output(z, torch.zeros(6, 8, 1, 1)), ) * 3)
    torch.testing.assert_close(strategy()(batch).logit,
                               torch.full((6, 3), 1 / 3))


@pytest.mark.parametrize('dtype', [torch.float32, torch.half, torch.bfloat16])
def test_infinitely_wrong_weighs_nothing_and_half_precision(dtype):
    right, wrong = torch.zeros(2, 5, dtype=dtype), torch.zeros(
        2, 5, dtype=dtype)
    right[:, 0], wrong[:, 1] = 3e4, 3e4
    feature = torch.zeros(2, 8, 1, 1)
    batch = random_batch(
        size=2,
        targets=torch.zeros(2, dtype=torch.long),
        teachers=tuple(
            output(z, feature) for z in (right, right, wrong)))
    weights = strategy(feature='teacher')(batch).logit
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([[.5, .5, 0.]] * 2))


@pytest.mark.parametrize('size', [1, 6])
def test_one_teacher(size):
    weights = strategy(1)(batch_with_pairs(1, size))
    assert torch.equal(weights.logit, torch.ones(size, 1))
    assert torch.equal(weights.feature, torch.ones(size, 1))


def test_training(tmp_path):
    check_training(tmp_path, dict(type='CAMKD'), 3)
    check_training(tmp_path / 'detached',
                   dict(type='CAMKD', detach_feature=True))


def test_the_distiller_uses_the_teachers_own_classifiers(tmp_path):
    model = MODELS.build(
        distiller(toy_teachers(tmp_path), weighting=dict(type='CAMKD')))
    images, labels = World().batch(4)
    weights = {}
    model.distillation.weighting.register_forward_hook(
        lambda _, args, out: weights.update(batch=args[0], out=out))
    model(images, samples(labels), mode='loss')
    # the toy teachers' classifiers are 6 times the identity
    logits = [6 * pair.student.flatten(1)
              for pair, in weights['batch'].pairs]
    torch.testing.assert_close(weights['out'].feature,
                               reference(logits, labels))


def test_a_classifier_that_cannot_run_alone_is_found_at_build(tmp_path):
    teachers = toy_teachers(tmp_path)
    teachers[1]['taps'] = dict(feature='backbone.conv')
    cfg = distiller(teachers, weighting=dict(type='CAMKD'))
    with pytest.raises(
            ValueError,
            match=r"(?s)weighting.feature: 'student'.*'t1'.*tapped at.*"
            "feature='teacher'"):
        MODELS.build(cfg)
    cfg['weighting']['feature'] = 'teacher'
    model = MODELS.build(cfg)
    images, labels = World().batch(4)
    model(images, samples(labels), mode='loss')
    # it is not needed without feature terms
    MODELS.build(
        distiller(teachers, weighting=dict(type='CAMKD'), feature_loss=None))


def flat(classes=CLASSES, side=2):
    """Config of a network whose classifier needs a map of a fixed size."""
    return dict(
        classifier(classes),
        backbone=dict(type='mmkd_rl.SideBackbone', width=classes, side=side),
        neck=None,
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=classes,
            in_channels=classes * side**2))


@MODELS.register_module(force=True)
class SideBackbone(ToyBackbone):
    """Backbone with maps of a given side, optionally flattened."""

    def __init__(self, width=8, side=2):
        super().__init__(width)
        self.side = side

    def forward(self, x):
        x, = super().forward(x)
        return (x.expand(-1, -1, self.side, self.side), )


@pytest.mark.parametrize('student, why', [
    (dict(taps=dict(feature='neck')), 'a vector'),
    (dict(), 'a coarser map'),
])
def test_a_classifier_is_tried_on_what_the_projector_gives(
        tmp_path, student, why):
    """A classifier that flattens a 2 x 2 map does not fit a student's pooled
    feature; the error is raised when the model is built."""
    teacher = dict(
        name='flat', checkpoint='untrained',
        config=dict(flat(), neck=dict(type='mmkd_rl.Flatten')))
    with pytest.raises(
            ValueError,
            match=r"(?s)weighting.feature: 'student'.*teacher 'flat'.*as the "
            r"projector gives them.*feature='teacher'"):
        MODELS.build(
            distiller([teacher], weighting=dict(type='CAMKD'), **student))
    fine = MODELS.build(
        distiller(
            [teacher],
            weighting=dict(type='CAMKD'),
            student=dict(
                classifier(8),
                backbone=dict(type='mmkd_rl.SideBackbone', width=8))))
    images, labels = World().batch(4)
    fine(images, samples(labels), mode='loss')


@MODELS.register_module(force=True)
class Flatten(nn.Module):
    """Neck that flattens a map."""

    def forward(self, xs):
        return tuple(x.flatten(1) for x in xs)


def test_an_error_in_training_is_shown_as_it_is():
    made = strategy()
    real = made.context.classify

    def broken(index, feature):
        raise RuntimeError('device lost')

    object.__setattr__(made.context, 'classify', broken)
    with pytest.raises(RuntimeError, match='^device lost$'):
        made(batch_with_pairs())
    object.__setattr__(made.context, 'classify', real)


def test_scores_that_overflow_in_half_precision():
    """Weights of 300 and features of 100 give scores beyond float16's
    65504."""
    layers = Classifiers()
    for layer in layers.layers:
        nn.init.normal_(layer.weight, 0, 300)
    made = strategy(ctx=context(classify=layers))
    batch = batch_with_pairs()
    batch = replace(
        batch,
        pairs=tuple((Pair((100 * p.student).half(), p.teacher), )
                    for p, in batch.pairs))
    with torch.autocast('cpu', torch.float16):
        assert not layers(0, batch.pairs[0][0].student).isfinite().all()
        weights = made(batch).feature
    assert weights.isfinite().all() and weights.dtype == torch.float32
    expected = made(
        replace(batch,
                pairs=tuple((Pair(p.student.float(), p.teacher), )
                            for p, in batch.pairs))).feature
    torch.testing.assert_close(weights, expected)


def test_bad_configs():
    with pytest.raises(ValueError, match="weighting.feature must.*'mine'"):
        strategy(feature='mine')
    with pytest.raises(ValueError, match="weighting.scale.*'papers'"):
        strategy(scale='papers')
    with pytest.raises(ValueError, match="there is none.*feature='teacher'"):
        strategy(ctx=context())
    with pytest.raises(TypeError, match="model.weighting.*'detach'"):
        strategy(detach=True)
