"""Terms in ``losses=[...]`` and calls of the model that are not in
test_multi_teacher.py."""

import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper
from mmpretrain.models import ImageClassifier

from mmkd_rl.records import Batch
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import ClassificationTask
from tests.toy import World, classifier, distiller, samples, toy_teachers

KD, DIST = dict(type='KDLoss'), dict(type='DISTLoss')
FITNET = dict(type='FitNetLoss')


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path, count=3)


def build(teachers, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(distiller(teachers, **kwargs)).train()


def losses_of(model, images, labels):
    return model(images, samples(labels), mode='loss')


@pytest.mark.parametrize('losses, names', [
    ([KD], ['loss_logit']),
    ([FITNET], ['loss_feature']),
    ([FITNET, KD], ['loss_feature', 'loss_logit']),
    ([FITNET, KD, DIST],
     ['loss_feature', 'loss_logit_KDLoss', 'loss_logit_DISTLoss']),
    ([KD, FITNET, FITNET],
     ['loss_logit', 'loss_feature_FitNetLoss', 'loss_feature_FitNetLoss_2']),
])
def test_names_are_as_short_as_they_can_be(teachers, losses, names):
    """If a kind has one term, the term has the name of the short form."""
    model = build(teachers, losses=losses)
    found = losses_of(model, *World().batch(4))
    assert list(found) == ['loss_student', *names]


def test_each_term_reaches_the_student(teachers):
    model = build(teachers, losses=[KD, FITNET, DIST, FITNET])
    losses = losses_of(model, *World().batch(6))
    assert len(losses) == 5
    for name, value in losses.items():
        gradient, = torch.autograd.grad(
            value, model.backbone.conv.weight, retain_graph=True)
        assert gradient.abs().max() > 1e-6, name


def test_a_gap_of_terms_without_weight(teachers):
    """If all loss weights are 0, the gap is the plain mean, not 0 / 0."""
    model = build(teachers, losses=[
        dict(t, loss_weight=0.) for t in (KD, FITNET, DIST, FITNET)
    ])
    seen = []
    model.distillation.weighting.register_forward_hook(
        lambda _, args, __: seen.append(args[0]))
    losses = losses_of(model, *World().batch(4))
    assert sum(losses.values()) == losses['loss_student']
    batch, = seen
    kd, fitnet, dist, other = (
        term(batch.student, batch.teachers, batch.truth)
        for term in model.distillation.terms)
    assert kd.min() > 0 and not torch.equal(fitnet, other)
    torch.testing.assert_close(batch.gaps.logit, (kd + dist) / 2)
    torch.testing.assert_close(batch.gaps.feature, (fitnet + other) / 2)


@pytest.mark.parametrize('changes, message', [
    (dict(losses=[KD, 'KDLoss']), r"^model.losses\[1\] must be a dict.*'KDL"),
    (dict(logit_loss=dict(type='mmpretrain.CrossEntropyLoss')),
     "^model.logit_loss.type: 'mmpretrain.Cross.* is no distillation term"),
])
def test_what_is_no_term(teachers, changes, message):
    with pytest.raises(TypeError, match=message):
        build(teachers, **changes)


# ------------------------------------------------------------------- calls


def test_positional_or_by_name_is_the_same(teachers):
    """Both ways give the same losses, and in other modes no teacher is run."""
    model = build(teachers)
    images, labels = World().batch(4)
    first, *others = (
        model(images, samples(labels), 'loss'),
        model(images, mode='loss', data_samples=samples(labels)),
        model(inputs=images, data_samples=samples(labels), mode='loss'))
    assert set(first) == {'loss_student', 'loss_logit', 'loss_feature'}
    for other in others:
        for name, value in first.items():
            assert torch.equal(value, other[name]), name
    last = model.distillation.last_step
    assert last is not None
    for mode in ('tensor', 'predict'):
        model(images, samples(labels), mode)
    assert model.distillation.last_step is last


def test_a_preprocessor_that_does_not_stack(teachers):
    """In ``train_step``, which passes the images by name."""
    model = build(teachers)
    model.data_preprocessor = BaseDataPreprocessor()
    images, labels = World().batch(4)
    with pytest.raises(TypeError, match='given a list of images'):
        model.train_step(
            dict(inputs=list(images), data_samples=samples(labels)),
            OptimWrapper(torch.optim.SGD(model.parameters(), lr=.1)))


@MODELS.register_module(force=True)
class ToySum(ImageClassifier):
    """Model whose losses are one number, not a dict."""

    def loss(self, inputs, data_samples):
        return super().loss(inputs, data_samples)['loss']


@MODELS.register_module(force=True)
class ToyMethod(ImageClassifier):
    """Model with a method that has the name of the distillation's child."""

    def distillation(self):
        return None


def test_students_that_do_not_fit(teachers):
    model = build(teachers, student=dict(classifier(8),
                                         type='mmkd_rl.ToySum'))
    with pytest.raises(TypeError, match='ToySum returns a Tensor in '
                       "mode='loss', not a dict of losses"):
        losses_of(model, *World().batch(4))
    with pytest.raises(ValueError, match="model.student: ToyMethod has an "
                       "attribute 'distillation' of its own"):
        build(teachers, student=dict(classifier(8), type='mmkd_rl.ToyMethod'))


def test_a_wrong_option_is_named_by_its_place_in_the_list(teachers):
    with pytest.raises(ValueError, match=r'^model\.losses\[1\]\.temperature '
                       r'must be > 0, got -3'):
        MODELS.build(distiller(teachers, losses=[
            dict(type='FitNetLoss'), dict(type='KDLoss', temperature=-3.)]))


def test_a_loss_of_the_students_is_never_overwritten(teachers):
    """The student's head has a loss with the name of a distillation term."""
    model = MODELS.build(distiller(teachers)).train()
    own = model.head.loss
    model.head.loss = lambda *args: {**own(*args), 'loss_feature': 1000.}
    images, labels = World().batch(4)
    with pytest.raises(ValueError, match=r"own losses \['loss_feature'\]"):
        model(images, samples(labels), mode='loss')


def test_labels_that_are_not_there():
    with pytest.raises(ValueError, match='without data_samples'):
        ClassificationTask().truth(Batch(World().batch(4)[0]))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('weighting, watched', [
    (dict(type='AverageWeighting'), False), (dict(type='EBKD'), False),
    (dict(type='AMTMLKD'), True),  # its relations use features
    (dict(type='AMTMLKD', distance_weight=0., angle_weight=0.), False),
    (dict(type='MTKDRL'), True),  # so does the agent's state
    (dict(type='MTKDRL', state=['ce']), False)])
def test_features_are_watched_for_nan_where_somebody_reads_them(
        teachers, weighting, watched):
    model = MODELS.build(distiller(
        teachers, weighting=weighting, feature_loss=None))
    assert model.distillation.teachers.watch_features is watched
