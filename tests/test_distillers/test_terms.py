"""Any number of terms in ``losses=[...]``, and what cannot be distilled."""

import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper
from mmpretrain.models import ImageClassifier

from mmkd_rl.records import TeacherWeights
from mmkd_rl.registry import MODELS
from tests.toy import World, classifier, distiller, samples, toy_teachers

TERMS = [
    dict(type='KDLoss', temperature=2., loss_weight=.5),
    dict(type='FitNetLoss', loss_weight=3.),
    dict(type='DISTLoss', loss_weight=.25),
    dict(type='KDLoss', temperature=4., loss_weight=1.5),
    dict(type='NDLoss', means='running', loss_weight=2.),
]
NAMES = [
    'loss_logit_KDLoss', 'loss_feature_FitNetLoss', 'loss_logit_DISTLoss',
    'loss_logit_KDLoss_2', 'loss_feature_NDLoss'
]


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path, count=3)


def build(teachers, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(distiller(teachers, **kwargs)).train()


def losses_of(model, images, labels):
    return model(images, samples(labels), mode='loss')


def with_weights(model, logit, feature):
    """Let the strategy give each image the same weights."""

    def forward(module, args, out):
        rows = len(out.logit)
        return TeacherWeights(
            torch.tensor([logit] * rows), torch.tensor([feature] * rows))

    model.distillation.weighting.register_forward_hook(forward)
    return model


def alone(model, index, teachers):
    """Another model with the same student and projectors, this one term, and
    its loss's name."""
    cfg = TERMS[index]
    kind = 'logit' if model.distillation.terms[index].reads == 'logits' \
        else 'feature'
    other = build(teachers, **{
        'logit_loss': None, 'feature_loss': None, f'{kind}_loss': cfg})
    state = {
        n: t for n, t in model.state_dict().items()
        if not n.startswith('distillation.')
    }
    assert not other.load_state_dict(state, strict=False).unexpected_keys
    other.distillation.terms[0].load_state_dict(
        model.distillation.terms[index].state_dict())
    return other, f'loss_{kind}'


@pytest.mark.parametrize('weights', [
    ([1., 0., 0.], [0., 0., 1.]),
    ([.5, .25, .25], [.1, .2, .7]),
])
def test_each_term_is_what_it_is_alone(teachers, weights):
    """Under a name of its own, with the weights of what it reads."""
    images, labels = World().batch(6)
    model = with_weights(build(teachers, losses=TERMS), *weights)
    # Before a batch gets into the running means of NDLoss.
    others = [alone(model, i, teachers) for i in range(len(TERMS))]
    losses = losses_of(model, images, labels)
    assert list(losses) == ['loss_student', *NAMES]
    for name, (other, own) in zip(NAMES, others):
        found = losses_of(with_weights(other, *weights), images, labels)
        assert set(found) == {'loss_student', own}
        torch.testing.assert_close(losses[name], found[own])
        torch.testing.assert_close(
            losses['loss_student'], found['loss_student'])


def test_the_losses_add_up(teachers):
    """Each reaches the student, and the log holds their sum."""
    images, labels = World().batch(6)
    model = build(teachers, losses=TERMS)
    losses = losses_of(model, images, labels)
    for name in NAMES:
        gradient, = torch.autograd.grad(
            losses[name], model.backbone.conv.weight, retain_graph=True)
        assert gradient.abs().max() > 1e-6, name
    model = build(teachers, losses=TERMS)
    log = model.train_step(
        dict(inputs=list(images), data_samples=samples(labels)),
        OptimWrapper(torch.optim.SGD(model.parameters(), lr=.1)))
    assert set(log) == {'loss', 'loss_student', *NAMES}
    torch.testing.assert_close(
        log['loss'], sum(log[n] for n in ('loss_student', *NAMES)))


@pytest.mark.parametrize('configs, names', [
    ([0], ['loss_logit']),
    ([1], ['loss_feature']),
    ([0, 1], ['loss_logit', 'loss_feature']),
    ([1, 0, 3], ['loss_feature', 'loss_logit_KDLoss', 'loss_logit_KDLoss_2']),
    ([0, 1, 1], ['loss_logit', 'loss_feature_FitNetLoss',
                 'loss_feature_FitNetLoss_2']),
])
def test_names_are_as_short_as_they_can_be(teachers, configs, names):
    """One term of a kind is called as its short form is."""
    model = build(teachers, losses=[dict(TERMS[i]) for i in configs])
    losses = losses_of(model, *World().batch(4))
    assert list(losses) == ['loss_student', *names]


def test_the_short_forms_are_a_list_of_two(teachers):
    short = build(teachers, logit_loss=TERMS[0], feature_loss=TERMS[1])
    long = build(teachers, losses=TERMS[:2])
    assert short.state_dict().keys() == long.state_dict().keys()
    images, labels = World().batch(4)
    a, b = (losses_of(m, images, labels) for m in (short, long))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.parametrize('scale', [1., 0.])
def test_a_strategy_looks_at_one_gap_a_kind(teachers, scale):
    """The mean by loss weights; without any weight the plain mean."""
    model = build(teachers, losses=[
        dict(t, loss_weight=scale * t['loss_weight']) for t in TERMS
    ])
    own = model.distillation.weighting.context
    assert own.logit_weight == scale * 2.25
    assert own.feature_weight == scale * 5
    assert own.temperature == 2  # of the first
    seen, gaps = [], []
    model.distillation.weighting.register_forward_hook(
        lambda _, args, __: seen.append(args[0]))
    compare = [t.compare for t in model.distillation.terms]

    def spy(f):
        return lambda pairs, truth: gaps.append(f(pairs, truth)) or gaps[-1]

    for term, f in zip(model.distillation.terms, compare):
        term.compare = spy(f)
    losses_of(model, *World().batch(4))
    batch, = seen
    kd, fitnet, dist, other_kd, nd = gaps
    if scale:
        logit = (.5 * kd + .25 * dist + 1.5 * other_kd) / 2.25
        feature = (3 * fitnet + 2 * nd) / 5
    else:
        logit, feature = (kd + dist + other_kd) / 3, (fitnet + nd) / 2
    torch.testing.assert_close(batch.gaps.logit, logit)
    torch.testing.assert_close(batch.gaps.feature, feature)
    # Two terms with a level each, for each of the three teachers.
    assert [len(levels) for levels in batch.pairs] == [2, 2, 2]


@pytest.mark.parametrize('changes, error, message', [
    (dict(losses=TERMS, logit_loss=dict(type='KDLoss')), ValueError,
     'model.losses lists all terms, so logit_loss and feature_loss.*left out'),
    (dict(losses=TERMS, feature_loss=dict(type='FitNetLoss')), ValueError,
     'model.losses lists all terms'),
    (dict(losses=TERMS, logit_loss=None), ValueError,
     'model.losses lists all terms'),
    (dict(losses=[]), ValueError,
     r'model.losses must be a list of at least one dict.*got \[\]'),
    (dict(losses=dict(type='KDLoss')), ValueError,
     "model.losses must be a list.*got {'type': 'KDLoss'}"),
    (dict(losses=[dict(type='KDLoss'), 'KDLoss']), TypeError,
     r"model.losses\[1\] must be a dict.*'KDLoss'"),
    (dict(losses=[dict(type='KDLoss'), dict(type='KDLos')]), ValueError,
     r"model.losses\[1\].type='KDLos' is not.*'KDLoss'"),
    (dict(losses=[dict(type='KDLoss', tau=4)]), TypeError,
     r"model.losses\[0\]: KDLoss has no option 'tau'"),
    (dict(losses=[dict(type='mmpretrain.CrossEntropyLoss')]), TypeError,
     r"model.losses\[0\].type='mmpretrain.CrossEntropyLoss' is no "
     'distillation term; take one of KDLoss'),
    (dict(logit_loss=dict(type='mmpretrain.CrossEntropyLoss')), TypeError,
     'model.logit_loss.type=.* is no distillation term'),
])
def test_bad_lists(teachers, changes, error, message):
    with pytest.raises(error, match=message):
        build(teachers, **changes)


# ------------------------------------------------- what can be a student


def test_a_student_that_is_distilled_already(teachers):
    message = 'model.student is distilled already.*all teachers in one list'
    for kind in ('mmkd_rl.MultiTeacherDistiller', 'MultiTeacherDistiller'):
        with pytest.raises(ValueError, match=message):
            build(teachers, student=dict(distiller(teachers[:1]), type=kind))


def test_a_file_of_a_distillation_as_student(tmp_path, teachers):
    """Its student is meant: another run's config can be named."""
    path = tmp_path / 'run.py'
    path.write_text(f'model = {distiller(teachers[:1])!r}\n')
    model = build(teachers, student=str(path))
    assert type(model) is ImageClassifier
    assert model.distillation.teacher_names == ('t0', 't1', 't2')


@MODELS.register_module(force=True)
class ToyAround(ImageClassifier):
    """A classifier with another model inside."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = MODELS.build(inner)


def test_a_student_with_a_distillation_inside(teachers):
    student = dict(classifier(8), type='mmkd_rl.ToyAround',
                   inner=distiller(teachers[:1]))
    with pytest.raises(ValueError, match='model.student has a distillation '
                       "already, in 'inner'; a model is distilled once"):
        build(teachers, student=student)


@MODELS.register_module(force=True)
class ToyDistillationModel(ImageClassifier):
    """A classifier with a method called as our child is."""

    def distillation(self):
        return None


def test_a_student_with_an_attribute_of_that_name(teachers):
    with pytest.raises(ValueError, match="ToyDistillationModel has an "
                       "attribute 'distillation' of its own"):
        build(teachers, student=dict(
            classifier(8), type='mmkd_rl.ToyDistillationModel'))


@pytest.mark.parametrize('part, name', [
    (classifier()['backbone'], 'ToyBackbone'),
    (classifier()['head'], 'LinearClsHead'),
    (dict(type='mmpretrain.ResNet', depth=18), 'ResNet'),
])
def test_a_part_is_no_student(teachers, part, name):
    with pytest.raises(TypeError, match=f'model.student: {name} is no whole '
                       r'model \(a classifier, detector or segmentor\)'):
        build(teachers, student=part)


# ------------------------------------------------------------ what it is given


def test_a_list_of_images(teachers):
    """By position, by name, and as a preprocessor gives it that does not
    stack; afterwards the model works on."""
    model = build(teachers)
    images, labels = World().batch(4)
    message = (r'given a list of images.*one tensor \[B, 3, H, W\]; let its '
               'data_preprocessor stack')
    with pytest.raises(TypeError, match=message):
        model(list(images), samples(labels), mode='loss')
    with pytest.raises(TypeError, match=message):
        model(inputs=list(images), data_samples=samples(labels), mode='loss')
    losses = model(
        inputs=images, data_samples=samples(labels), mode='loss')
    assert set(losses) == {'loss_student', 'loss_logit', 'loss_feature'}
    model.data_preprocessor = BaseDataPreprocessor()
    with pytest.raises(TypeError, match=message):
        model.train_step(
            dict(inputs=list(images), data_samples=samples(labels)),
            OptimWrapper(torch.optim.SGD(model.parameters(), lr=.1)))


def test_positional_or_by_name_is_the_same(teachers):
    model = build(teachers)
    images, labels = World().batch(4)
    found = [
        model(images, samples(labels), 'loss'),
        model(images, mode='loss', data_samples=samples(labels)),
        model(inputs=images, data_samples=samples(labels), mode='loss'),
    ]
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, other[name]), name
    last = model.distillation.last_step
    assert last is not None
    for mode in ('tensor', 'predict'):  # no teacher is run
        model(images, samples(labels), mode)
    assert model.distillation.last_step is last


@MODELS.register_module(force=True)
class ToySum(ImageClassifier):
    """Its losses are one number, not a dict."""

    def loss(self, inputs, data_samples):
        return super().loss(inputs, data_samples)['loss']


def test_losses_that_are_no_dict(teachers):
    model = build(teachers, student=dict(classifier(8),
                                         type='mmkd_rl.ToySum'))
    with pytest.raises(TypeError, match="ToySum returns a Tensor in "
                       "mode='loss', not a dict of losses"):
        losses_of(model, *World().batch(4))
