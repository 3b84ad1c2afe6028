"""The distilled model computes Eq. (2), and otherwise equals the student."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.registry import MODELS
from tests.toy import (
    World,
    classifier,
    distiller,
    samples,
    teacher_file,
    toy_runner,
    toy_teachers,
)


def build(teachers, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(distiller(teachers, **kwargs)).train()


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path, count=3)


def plain(model):
    """Copy of the student's model without the distillation."""
    alone = type(model)(
        model.backbone, model.neck, model.head,
        data_preprocessor=model.data_preprocessor)
    return alone.train(model.training)


def projectors(model):
    """Projectors of one level, in the teachers' order; empty if there is no
    feature term."""
    return [
        levels[0] for term in model.distillation.terms
        if term.reads == 'features' for levels in term.projectors
    ]


def step(model, images, labels):
    """Compute losses, and the gradient of their sum."""
    model.zero_grad()
    losses = model(images, samples(labels), mode='loss')
    sum(losses.values()).backward()
    return losses, {
        n: p.grad.clone()
        for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize('weighting', ['AverageWeighting', 'MTKDRL'])
@pytest.mark.parametrize('alpha, beta, temperature', [(1., 5., 4.),
                                                      (.3, 2., 1.),
                                                      (1., None, 4.),
                                                      (None, 5., 4.)])
def test_the_students_gradient_is_that_of_equation_2(
        teachers, weighting, alpha, beta, temperature):
    """Compared with a loop over samples and teachers, for given weights."""
    model = build(
        teachers,
        weighting=dict(type=weighting),
        logit_loss=alpha and dict(
            type='KDLoss', temperature=temperature, loss_weight=alpha),
        feature_loss=beta and dict(type='FitNetLoss', loss_weight=beta))
    world = World()
    if weighting == 'MTKDRL':  # weights that differ by sample and teacher
        images, labels = world.batch(8)
        model(images, samples(labels), mode='loss')
        strategy = model.distillation.weighting
        strategy.learner.remember(model.distillation.last_step.weights.record)
        strategy.learner.update()
    images, labels = world.batch(6)
    losses, gradient = step(model, images, labels)
    weights = model.distillation.last_step.weights
    if weighting == 'MTKDRL':
        assert weights.logit.std(0).max() > 1e-3
    expected = {'loss_student'}
    expected |= {'loss_logit'} if alpha else set()
    expected |= {'loss_feature'} if beta else set()
    assert set(losses) == expected

    reference = copy.deepcopy(model)
    reference.zero_grad()
    networks = [t.model for t in model.distillation.teachers]
    feature = reference.backbone(images)[0]
    logits = reference.head.fc(feature.flatten(1))
    projected = [p.layers(feature) for p in projectors(reference)]
    total = 0.
    for i in range(6):
        total = total + F.cross_entropy(logits[i], labels[i])
        for m, network in enumerate(networks):
            with torch.no_grad():
                target = network.backbone(images[i:i + 1])[0]
                z = network.head.fc(target.flatten(1))[0]
            if alpha:
                p = (z / temperature).softmax(0)
                log_q = (logits[i] / temperature).log_softmax(0)
                kl = sum(p[c] * (p[c].log() - log_q[c]) for c in range(5))
                total = total + alpha * float(
                    weights.logit[i, m]) * temperature**2 * kl
            if beta:
                gap = (projected[m][i] - target[0]).square().mean()
                total = total + beta * float(weights.feature[i, m]) * gap
    (total / 6).backward()
    torch.testing.assert_close(sum(losses.values()), total / 6)
    for name, p in reference.named_parameters():
        torch.testing.assert_close(
            gradient[name],
            p.grad,
            rtol=1e-4,
            atol=1e-5,
            msg=lambda text, name=name: f'{name}: {text}')


def test_copies_of_one_teacher_are_that_teacher(teachers):
    """Three copies of a teacher with average weights give the losses and the
    student's gradient of a single one."""
    one = build(teachers[:1])
    many = build([dict(teachers[0], name=f'copy{i}') for i in range(3)])
    with torch.no_grad():
        for name, value in plain(many).state_dict().items():
            value.copy_(one.state_dict()[name])
    for p in projectors(many):
        p.load_state_dict(projectors(one)[0].state_dict())
    images, labels = World().batch(6)
    losses, gradient = step(one, images, labels)
    others, other_gradient = step(many, images, labels)
    for name in losses:
        torch.testing.assert_close(losses[name], others[name])
    for name in gradient:
        if not name.startswith('distillation.'):
            torch.testing.assert_close(gradient[name], other_gradient[name])


def test_otherwise_it_is_the_student(teachers):
    model = build(teachers).eval()
    images, labels = World().batch(4)
    alone = plain(model)
    assert torch.equal(model(images, mode='tensor'), alone(images))
    ours = model(images, samples(labels), mode='predict')
    theirs = alone(images, samples(labels), mode='predict')
    for a, b in zip(ours, theirs):
        assert torch.equal(a.pred_score, b.pred_score)
        assert torch.equal(a.pred_label, b.pred_label)


def test_the_students_own_loss_is_that_of_the_student_alone(teachers):
    model = build(
        teachers,
        student=dict(
            classifier(8),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=5,
                in_channels=8,
                loss=dict(
                    type='mmpretrain.LabelSmoothLoss', label_smooth_val=.1))))
    images, labels = World().batch(4)
    alone = plain(model)(images, samples(labels), mode='loss')['loss']
    losses = model(images, samples(labels), mode='loss')
    assert torch.equal(losses['loss_student'], alone)


def test_a_step_of_mmengine(teachers):
    """``train_step`` with the preprocessor, as in a runner."""
    from mmengine.optim import OptimWrapper
    model = build(teachers)
    images, labels = World().batch(4)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=.1))
    before = [p.clone() for p in model.parameters()]
    log = model.train_step(
        dict(inputs=list(images), data_samples=samples(labels)), wrapper)
    parts = [log[n] for n in ('loss_student', 'loss_logit', 'loss_feature')]
    torch.testing.assert_close(log['loss'], sum(parts))
    assert all(
        not torch.equal(p, q) for p, q in zip(before, model.parameters()))


@pytest.mark.parametrize('weighting', ['AverageWeighting', 'MTKDRL'])
def test_one_image(teachers, weighting):
    model = build(teachers, weighting=dict(type=weighting)).eval()
    images, labels = World().batch(1)
    losses = model(images, samples(labels), mode='loss')
    assert all(v.isfinite() for v in losses.values())


def test_a_perfect_student_has_nothing_to_learn_from_its_teacher(tmp_path):
    """If student and teacher are equal, the logit loss and its gradient are
    zero."""
    teacher, = toy_teachers(tmp_path, count=1)
    model = build([teacher], student=classifier(5), feature_loss=None)
    model.load_state_dict(torch.load(teacher['checkpoint'])['state_dict'])
    images, labels = World().batch(4)
    loss = model(images, samples(labels), mode='loss')['loss_logit']
    assert loss.abs() < 1e-5
    loss.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-5
               for p in model.parameters())


def test_a_vector_as_feature(teachers):
    """The student's feature is a vector after the neck, those of the teachers
    are maps before it."""
    model = build(teachers, taps=dict(feature='neck'))
    context = model.distillation.weighting.context
    assert context.student.features == ((8, ), )
    images, labels = World().batch(4)
    losses, _ = step(model, images, labels)
    assert losses['loss_feature'] > 0


def test_mixed_precision_of_the_student_leaves_losses_in_float32(teachers):
    model = build(teachers)
    images, labels = World().batch(4)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(images, samples(labels), mode='loss')
    assert losses['loss_logit'].dtype == torch.float32
    assert losses['loss_feature'].dtype == torch.float32
    full = model(images, samples(labels), mode='loss')
    for name in losses:
        torch.testing.assert_close(
            losses[name].float(), full[name], rtol=.05, atol=.02)


@pytest.mark.parametrize('changes, error, message', [
    (dict(weighting=dict(type='NoSuchThing')), ValueError,
     "model.weighting.type: 'NoSuchThing' is not a registered weighting"),
    (dict(weighting='MTKDRL'), TypeError,
     "model.weighting must be a dict.*'MTKDRL'"),
    (dict(logit_loss=dict(type='KDLos')), ValueError,
     "model.logit_loss.type: 'KDLos'.*'KDLoss'"),
    (dict(logit_loss=dict(type='KDLoss', temperature=-4.)), ValueError,
     r'logit_loss.temperature must be > 0, got -4\.0'),
    (dict(logit_loss=None, feature_loss=None), ValueError, 'both None'),
    (dict(logit_loss=dict(type='KDLoss', tau=4)), TypeError,
     "model.logit_loss.*'tau'"),
    (dict(task=dict(type='Segmentation')), ValueError,
     "model.task.type: 'Segmentation'.*'SegmentationTask'"),
    (dict(taps=dict(feature='backbone.layer9')), ValueError,
     "model.taps.feature.*'backbone.layer9'.*'backbone.conv'"),
    (dict(student='no/such.py'), FileNotFoundError,
     "model.student='no/such.py'"),
    (dict(student=dict(backbone=3)), ValueError, 'model.student'),
    (dict(student=dict(type='mmpretrain.NoNet')), ValueError,
     'model.student.*NoNet'),
    (dict(teachers=[]), ValueError, 'at least one'),
    (dict(projector=dict(actt=True)), TypeError,
     r"^model.projector: Projector has no option 'actt'; it takes "
     r"\['act', 'norm'\]; "
     r"did you mean 'act'\?"),
    (dict(projector='act'), TypeError, "model.projector must be.*'act'"),
    (dict(weigthing=dict(type='EBKD')), TypeError,
     r"^model: MultiTeacherDistiller has no option 'weigthing'; it takes "
     r"\['student'.*'init_cfg'\]; did you mean 'weighting'\?"),
    (dict(logit_loss=dict(type='KDLoss', _delete_=True)), TypeError,
     '^model.logit_loss._delete_: replaces a key of a base config, and no '
     'base has this one; remove it'),
    (dict(_delete_=True), TypeError, '^model._delete_: replaces'),
    (dict(weighting=dict(type='EBKD', scale='x')), ValueError,
     '^model.weighting.scale must'),
    (dict(weighting=dict(type='AEKD', C='x')), TypeError,
     "^model.weighting.C must be a number > 0, got 'x'"),
    (dict(weighting=dict(type='AEKD', context=1)), TypeError,
     "no option 'context'"),
])
def test_bad_configs(teachers, changes, error, message):
    with pytest.raises(error, match=message):
        MODELS.build({**distiller(teachers), **changes})


def test_a_student_of_another_kind_of_config(tmp_path, teachers):
    """The student can also be the path of a config."""
    (tmp_path / 'student.py').write_text(
        f'model = {classifier(8)!r}\n'
        'data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6])\n')
    model = build(teachers, student=str(tmp_path / 'student.py'))
    assert model.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]


def test_the_students_own_preprocessor_comes_first(tmp_path, teachers):
    """A runner gives the config's to a model without one, so that a student
    with one trains as it does alone."""
    own = dict(mean=[1, 2, 3], std=[4, 5, 6])
    given = dict(type='ClsDataPreprocessor', mean=[7, 8, 9], std=[1, 1, 1])
    for student, mean in ((dict(data_preprocessor=own), [1, 2, 3]),
                          ({}, [7, 8, 9])):
        cfg = distiller(teachers)
        cfg['student'].update(student)
        runner = toy_runner(tmp_path / 'run', cfg, data_preprocessor=given)
        found = runner.model.data_preprocessor
        assert found.mean.flatten().tolist() == mean


def test_two_experts_are_told_apart_in_order(tmp_path):
    """Columns of the weights have the order of the config's teachers."""
    world = World()
    right = teacher_file(tmp_path / 'a.pth', world.prototypes,
                         6 * torch.eye(5))
    wrong = teacher_file(tmp_path / 'b.pth', world.prototypes.roll(1, 0),
                         6 * torch.eye(5))
    for order in ((right, wrong), (wrong, right)):
        model = build([
            dict(name=f'n{i}', config=classifier(5), checkpoint=c)
            for i, c in enumerate(order)
        ], weighting=dict(type='MTKDRL'))
        images, labels = world.batch(32)
        model(images, samples(labels), mode='loss')
        strategy = model.distillation.weighting
        strategy.learner.remember(model.distillation.last_step.weights.record)
        (transition, ) = strategy.learner.history
        reward = transition.reward.mean(0)
        assert (reward[0] > reward[1]) == (order[0] == right)
        assert model.distillation.teacher_names == ('n0', 'n1')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('weighting, needed', [
    ('AverageWeighting', False), ('EBKD', False), ('AEKD', False),
    ('AMTMLKD', False), ('CAMKD', False), ('MMKD', False), ('MTKDRL', True)])
def test_similarity_is_computed_for_those_who_look_at_it(
        teachers, weighting, needed):
    model = build(teachers, weighting=dict(type=weighting))
    strategy = model.distillation.weighting
    assert strategy.needs_similarity is needed
    found = []
    strategy.register_forward_hook(
        lambda _, args, __: found.append(args[0].gaps.similarity))
    images, labels = World().batch(4)
    model(images, samples(labels), mode='loss')
    assert [f is not None for f in found] == [needed]


def test_other_classes_with_features_alone(tmp_path):
    """The message names all strategies that do not use classes."""
    other = dict(name='t', config=classifier(8, classes=3),
                 checkpoint='untrained')
    with pytest.raises(
            ValueError,
            match=r"CAMKD compares class scores.*'t' has 3 classes and the "
            r'student 5.*'
            r"\['AEKD', 'AMTMLKD', 'AverageWeighting'\]"):
        build([other], logit_loss=None,
              weighting=dict(type='CAMKD', feature='teacher'))
    for kind in ('AEKD', 'AMTMLKD', 'AverageWeighting'):
        build([other], logit_loss=None, weighting=dict(type=kind))


# ------------------------------------------------- several terms of a kind


LOSSES = [
    dict(type='FitNetLoss', loss_weight=2.),
    dict(type='KDLoss', temperature=2., loss_weight=.5),
    dict(type='DISTLoss', loss_weight=3.),
    dict(type='KDLoss', temperature=1., loss_weight=0.),
    dict(type='FitNetLoss', loss_weight=1.),
    dict(type='KDLoss', temperature=3., loss_weight=1.5),
]


@pytest.mark.filterwarnings('ignore')
def test_several_terms_have_their_names_and_weights(teachers):
    """Each term is lambda_k mean_i sum_m w_m G_m, with the weights for logits
    or features, which differ here; the student's own loss does not change."""
    model = build(teachers, losses=LOSSES, weighting=dict(type='CAMKD'))
    images, labels = World().batch(6)
    found = []
    model.distillation.weighting.register_forward_hook(
        lambda _, args, __: found.append(args[0]))
    losses = model(images, samples(labels), mode='loss')
    names = [
        'loss_feature_FitNetLoss', 'loss_logit_KDLoss', 'loss_logit_DISTLoss',
        'loss_logit_KDLoss_2', 'loss_feature_FitNetLoss_2',
        'loss_logit_KDLoss_3'
    ]
    assert list(losses) == ['loss_student', *names]
    seen, = found
    weights = model.distillation.last_step.weights
    assert not torch.allclose(weights.logit, weights.feature)
    gaps = [term(seen.student, seen.teachers, seen.truth)
            for term in model.distillation.terms]
    for name, cfg, gap in zip(names, LOSSES, gaps):
        kind = weights.feature if 'feature' in name else weights.logit
        torch.testing.assert_close(
            losses[name], cfg['loss_weight'] * (kind * gap).sum(1).mean())
    assert losses['loss_logit_KDLoss_2'] == 0 and gaps[3].min() > 0
    alone = plain(model)(images, samples(labels), mode='loss')['loss']
    assert torch.equal(losses['loss_student'], alone)
    # Strategies get one number a teacher, and the pairs of all terms.
    torch.testing.assert_close(
        seen.gaps.logit, (.5 * gaps[1] + 3 * gaps[2] + 1.5 * gaps[5]) / 5)
    torch.testing.assert_close(
        seen.gaps.feature, (2 * gaps[0] + gaps[4]) / 3)
    assert [len(levels) for levels in seen.pairs] == [2, 2, 2]
    context = model.distillation.weighting.context
    assert (context.logit_weight, context.feature_weight) == (5., 3.)
    assert context.temperature == 2.


def test_a_step_of_mmengine_adds_all_terms_up(teachers):
    from mmengine.optim import OptimWrapper
    model = build(teachers, losses=LOSSES)
    images, labels = World().batch(4)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=.1))
    log = model.train_step(
        dict(inputs=list(images), data_samples=samples(labels)), wrapper)
    assert len(log) == 8
    torch.testing.assert_close(
        log['loss'], sum(v for n, v in log.items() if n != 'loss'))


def test_the_short_forms_are_a_list_of_two(teachers):
    """Both forms give the same numbers and names in the log, and the same
    names of weights."""
    short = build(teachers)
    long = build(teachers, losses=[dict(type='KDLoss'),
                                   dict(type='FitNetLoss')])
    assert short.state_dict().keys() == long.state_dict().keys()
    images, labels = World().batch(4)
    a, b = (m(images, samples(labels), mode='loss') for m in (short, long))
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name])


@pytest.mark.parametrize('changes, error, message', [
    (dict(losses=LOSSES, logit_loss=None), ValueError,
     '^model.losses: this replaces logit_loss and feature_loss; remove these '
     'two'),
    (dict(losses=LOSSES, feature_loss=dict(type='FitNetLoss')), ValueError,
     'remove these two from the config, or losses'),
    (dict(losses=[]), ValueError, r'^model.losses must be a list.*got \[\]'),
    (dict(losses=dict(type='KDLoss')), ValueError,
     '^model.losses must be a list'),
    (dict(losses=[LOSSES[0], dict(type='KDLos')]), ValueError,
     r"^model.losses\[1\].type: 'KDLos'"),
    (dict(losses=[dict(type='KDLoss', tau=3)]), TypeError,
     r"^model.losses\[0\].*'tau'"),
    (dict(losses=[dict(type='mmpretrain.CrossEntropyLoss')]), TypeError,
     r'^model.losses\[0\].type: .* is no distillation term; take one of KD'),
])
def test_bad_lists_of_terms(teachers, changes, error, message):
    with pytest.raises(error, match=message):
        MODELS.build({**distiller(teachers), **changes})


# ------------------------------------------------------- unusual students


def test_a_student_that_is_distilled_already(tmp_path, teachers):
    """A distilled model as a dict or as a part; from the config file of a
    distillation the student is used, as for teachers."""
    inner = distiller(teachers)
    for student in (inner, dict(inner, type='MultiTeacherDistiller')):
        with pytest.raises(ValueError, match='model.student: it is distilled '
                           'already.*give its student, and all teachers'):
            build(teachers, student=student)
    with pytest.raises(ValueError, match="model.student: it has a distillat"
                       "ion already, in 'backbone'; a model is distilled "
                       'once, with all teachers'):
        build(teachers, student=dict(classifier(8), backbone=inner))
    (tmp_path / 'distilled.py').write_text(f'model = {inner!r}\n')
    model = build(teachers[:1], student=str(tmp_path / 'distilled.py'))
    assert model.distillation.teacher_names == ('t0', )
    assert model.state_dict().keys() == build(teachers[:1]).state_dict().keys()


def test_a_part_as_student(teachers):
    with pytest.raises(TypeError, match='model.student: ToyBackbone is not a '
                       r'whole model \(a classifier, detector or segmentor\)'):
        build(teachers, student=dict(type='mmkd_rl.ToyBackbone'))


def test_images_that_are_not_stacked(teachers):
    """The preprocessor returns a list of images; modes other than training
    are those of the plain model."""
    model = build(teachers)
    images, labels = World().batch(2)
    with pytest.raises(TypeError, match='the student is given a list of '
                       'images.*needs one tensor.*data_preprocessor'):
        model(list(images), samples(labels), mode='loss')
    losses = model(images, samples(labels), mode='loss')
    assert set(losses) == {'loss_student', 'loss_logit', 'loss_feature'}
