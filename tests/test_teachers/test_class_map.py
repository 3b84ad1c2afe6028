"""Teachers with other classes than the student."""

import numpy as np
import pytest
import torch
from torch import nn

from mmkd_rl.losses import DISTLoss, DKDLoss, KDLoss
from mmkd_rl.losses.class_map import complete
from mmkd_rl.records import Output, TeacherWeights
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import ClassificationTask
from mmkd_rl.teachers.class_map import ClassMap, check_names
from mmkd_rl.weighting import restrict
from tests.test_losses.steps import of_logits
from tests.toy import (
    CLASSES,
    World,
    classifier,
    distiller,
    samples,
    spec,
    teacher_file,
    toy_teachers,
    truth,
)

T = 4.
EYE = torch.eye(CLASSES)


@pytest.fixture
def logits():
    g = torch.Generator().manual_seed(0)
    return (3 * torch.randn(6, 4, generator=g).double(),
            3 * torch.randn(6, CLASSES, generator=g).double())


def completed_by(row, teacher, student, num_teacher=4):
    """Logits of the teacher as a logit term gets them."""
    class_map = ClassMap(row, num_teacher, CLASSES, 't')
    return complete(class_map.select(teacher), student, class_map.known, T)


def test_completed_with_what_the_student_believes(logits):
    teacher, student = logits
    row = [2, -1, 0, -1, 3]
    known = [c for c in range(CLASSES) if row[c] >= 0]
    p = (completed_by(row, teacher, student) / T).double().softmax(1)
    q = (student / T).softmax(1)
    for b in range(6):
        share = sum(q[b, c] for c in known)
        mass = sum((teacher[b, row[c]] / T).exp() for c in known)
        for c in range(CLASSES):
            expected = q[b, c] if c not in known else \
                share * (teacher[b, row[c]] / T).exp() / mass
            torch.testing.assert_close(p[b, c], expected, atol=1e-6, rtol=0)


def test_nothing_is_said_about_unknown_classes(logits):
    """KL(p' || q) = q(K) KL(p(.|K) || q(.|K)), with a gradient only on K."""
    teacher, student = logits
    row = [2, -1, 0, -1, 3]
    known = torch.tensor([0, 2, 4])
    z = student.float().requires_grad_()
    completed = completed_by(row, teacher, z)
    assert not completed.requires_grad
    loss = of_logits(KDLoss(T), z, completed.unsqueeze(1))[:, 0]
    reference = (student / T).softmax(1)[:, known].sum(1) * of_logits(
        KDLoss(T), student[:, known],
        teacher[:, [2, 0, 3]].unsqueeze(1))[:, 0]
    torch.testing.assert_close(loss, reference.float())
    loss.sum().backward()
    assert z.grad[:, [1, 3]].abs().max() < 1e-6
    assert z.grad[:, known].abs().max() > 1e-2


@pytest.mark.parametrize('temperature', [.5, 1., T])
def test_completing_is_a_divergence_under_a_mask(logits, temperature):
    """Value and gradient equal those of a divergence over the known classes,
    multiplied by the student's probability of them as a constant."""
    teacher, student = logits
    known = torch.tensor([True, False, True, False, True])
    class_map = ClassMap([2, -1, 0, -1, 3], 4, CLASSES, 't')
    assert torch.equal(class_map.known, known)
    z = student.float().requires_grad_()
    completed = complete(class_map.select(teacher), z, known, temperature)
    loss = of_logits(KDLoss(temperature), z, completed.unsqueeze(1))[:, 0]
    x = student.clone().requires_grad_()
    belief = (student / temperature).softmax(1)[:, known].sum(1)
    masked = belief * temperature**2 * nn.functional.kl_div(
        (x[:, known] / temperature).log_softmax(1),
        (teacher[:, [2, 0, 3]] / temperature).softmax(1),
        reduction='none').sum(1)
    torch.testing.assert_close(loss, masked.float())
    share = torch.arange(1., 7.)
    (share * loss).sum().backward()
    (share * masked).sum().backward()
    torch.testing.assert_close(z.grad, x.grad.float(), rtol=1e-4, atol=1e-5)


def test_what_stands_at_unknown_classes_does_not_matter(logits):
    teacher, student = logits
    known = torch.tensor([True, False, True, False, True])
    wide = torch.randn(6, CLASSES)
    other = torch.where(known, wide, 1e4 * torch.randn(6, CLASSES))
    assert torch.equal(complete(wide, student, known, T),
                       complete(other, student, known, T))


def test_a_term_completes_by_what_it_was_built_for(logits):
    """A term can have teachers with and without a class map."""
    teacher, student = (x.float() for x in logits)
    class_map = ClassMap([2, -1, 0, -1, 3], 4, CLASSES, 't')
    whole = torch.randn(6, CLASSES)
    term = KDLoss(T)
    term.build(spec(), [spec('a'), spec('b', known=class_map.known)])
    loss = term(
        Output(logits=(student, )),
        [Output(logits=(z, )) for z in (whole, class_map.select(teacher))],
        truth(torch.zeros(6).long()))
    completed = complete(class_map.select(teacher), student, class_map.known,
                         T)
    torch.testing.assert_close(loss, of_logits(
        KDLoss(T), student, torch.stack([whole, completed], 1)))
    assert not term.state_dict()


@pytest.mark.parametrize('loss', [
    DISTLoss(temperature=T), DKDLoss(temperature=T)])
def test_other_losses_tie_known_and_unknown_classes_together(logits, loss):
    """Checks the statement in the docstring."""
    teacher, student = logits
    z = student.float().requires_grad_()
    completed = completed_by([2, -1, 0, -1, 3], teacher, z)
    of_logits(loss, z, completed.unsqueeze(1),
              torch.tensor([0, 2, 4] * 2)).sum().backward()
    assert z.grad[:, [1, 3]].abs().max() > 1e-4


def test_scores_of_each_pixel():
    """Each pixel like an image of its own."""
    class_map = ClassMap([2, -1, 0, -1, 3], 4, CLASSES, "teacher 't'")
    dense = torch.randn(2, 4, 3, 3)
    found = class_map.select(dense)
    assert found.shape == (2, CLASSES, 3, 3)
    for h in range(3):
        for w in range(3):
            assert torch.equal(found[..., h, w],
                               class_map.select(dense[..., h, w]))


def test_integers_of_numpy():
    row = [2, -1, 0, -1, 3]
    expected = ClassMap(row, 4, CLASSES, 't')
    for value in (list(np.array(row)),
                  {np.int64(c): np.int32(i)
                   for c, i in enumerate(row) if i >= 0}):
        made = ClassMap(value, 4, CLASSES, 't')
        assert torch.equal(made.index, expected.index)
        assert torch.equal(made.known, expected.known)


def test_a_whole_map_renames_and_no_more(logits):
    teacher = torch.cat(logits, 1)[:, :CLASSES]
    order = [3, 0, 4, 1, 2]
    completed = completed_by(order, teacher, logits[1], CLASSES)
    torch.testing.assert_close(completed, teacher[:, order].float())
    as_dict = completed_by(dict(enumerate(order)), teacher, logits[1], CLASSES)
    assert torch.equal(as_dict, completed)


def test_weights_go_to_those_who_know():
    logit = torch.tensor([[.5, .25, .25]] * 4)
    knows = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]).float()

    def restricted(logit, knows):
        weights = TeacherWeights(logit, logit)
        assert restrict(weights, None) is weights
        assert restrict(weights, knows).feature is logit
        return restrict(weights, knows).logit

    torch.testing.assert_close(
        restricted(logit, knows),
        torch.tensor([[.5, .25, .25], [0, .5, .5], [0, 0, 1.], [0, 0, 0]]))
    half = torch.tensor([[.5, .5, .5]])  # soft targets, half of each known
    torch.testing.assert_close(restricted(logit[:1], half), logit[:1] / 2)
    torch.testing.assert_close(
        restricted(3 * logit[1:2], knows[1:2]).sum(), torch.tensor(3.))


@pytest.mark.parametrize('targets', [
    torch.tensor([0, 1]),
    torch.tensor([[1., 0, 0, 0, 0], [0, 1., 0, 0, 0]])
])
def test_who_knows_what(targets):
    known = ClassMap([0, -1, -1, -1, 1], 2, CLASSES, 't').known
    coverage = ClassificationTask().class_coverage(
        truth(targets), torch.stack([known, ~known, known | True]))
    assert coverage.tolist() == [[1, 0, 1], [0, 1, 1]]


STRATEGIES = ['AverageWeighting', 'MTKDRL']


def build(teachers, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(distiller(teachers, **kwargs)).train()


def few_classes(tmp_path, count=3):
    """A teacher with the last ``count`` classes of the student."""
    world = World()
    path = teacher_file(tmp_path / 'few.pth', world.prototypes,
                        6 * EYE[-count:])
    return dict(
        name='few',
        config=classifier(CLASSES, classes=count),
        checkpoint=path,
        class_map={CLASSES - count + i: i
                   for i in range(count)})


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('strategy', STRATEGIES)
def test_a_step_with_a_teacher_of_fewer_classes(tmp_path, strategy):
    model = build([*toy_teachers(tmp_path), few_classes(tmp_path)],
                  weighting=dict(type=strategy))
    images, labels = World().batch(40)
    losses = model(images, samples(labels), mode='loss')
    assert all(v.isfinite() for v in losses.values())
    weights = model.distillation.last_step.weights
    torch.testing.assert_close(weights.logit.sum(1), torch.ones(40))
    unknown = labels < 2
    assert unknown.any() and (weights.logit[unknown, 2] == 0).all()
    assert (weights.logit[~unknown, 2] > 0).all()
    assert (weights.feature[:, 2] > 0).all()
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('weighting', [
    dict(type='EBKD'),
    dict(type='CAMKD', feature='teacher'),
    dict(type='MTKDRL')
])
def test_a_teacher_is_judged_without_the_student(tmp_path, weighting):
    """The teacher's entropy and cross entropy do not depend on the student's
    probability of classes that the teacher does not know."""
    model = build([*toy_teachers(tmp_path, 1), few_classes(tmp_path)],
                  weighting=weighting)
    images, labels = World().batch(40)
    chosen = labels >= 2
    found = []
    for bias in (0., 50.):
        with torch.no_grad():
            model.head.fc.bias[0] = bias
        model(images[chosen], samples(labels[chosen]), mode='loss')
        weights = model.distillation.last_step.weights
        if weighting['type'] == 'MTKDRL':  # w^conf of the logits
            found.append(weights.record[0].sources[:, 0, 0])
        else:
            found.append(weights.logit)
    torch.testing.assert_close(found[0], found[1])
    # and the teachers, equally right and sure, have equal weights
    assert ((found[0].mean(0) - .5).abs() < .2).all()


def test_a_class_that_no_teacher_has_seen(tmp_path):
    """Images of this class have no logit loss, only the student's own."""
    model = build([few_classes(tmp_path)], feature_loss=None)
    images, labels = World().batch(40)
    unseen = labels < 2
    for chosen, expected in ((unseen, 0.), (~unseen, None)):
        losses = model(images[chosen], samples(labels[chosen]), mode='loss')
        assert (losses['loss_logit'] == 0) == (expected == 0.)
        assert losses['loss_student'] > 0


def test_a_renamed_teacher_is_the_same_teacher(tmp_path):
    """Renaming the teacher's classes and mapping them back changes nothing."""
    world, order = World(), [3, 0, 4, 1, 2]
    plain = teacher_file(tmp_path / 'a.pth', world.prototypes, 6 * EYE)
    renamed = teacher_file(tmp_path / 'b.pth', world.prototypes,
                           6 * EYE[order])
    images, labels = world.batch(8)
    losses = []
    for path, classes in ((plain, None), (renamed,
                                          [order.index(c) for c in range(5)])):
        teacher = dict(name='t', config=classifier(CLASSES), checkpoint=path)
        if classes:
            teacher['class_map'] = classes
        losses.append(build([teacher])(images, samples(labels), mode='loss'))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)


def test_features_alone_need_no_classes_in_common(tmp_path):
    teacher = few_classes(tmp_path)
    del teacher['class_map']
    model = build([teacher], logit_loss=None)
    images, labels = World().batch(8)
    losses = model(images, samples(labels), mode='loss')
    assert 'loss_logit' not in losses and losses['loss_feature'] > 0
    with pytest.raises(ValueError, match='MTKDRL compares class scores, but '
                       "teacher 'few' has 3 classes and the student 5; give "
                       'the teacher class_map'):
        build([teacher], logit_loss=None, weighting=dict(type='MTKDRL'))


def test_moves_with_the_distiller(tmp_path):
    model = build([few_classes(tmp_path)]).double()
    pool = model.distillation.teachers
    assert pool._maps[0].index.dtype == torch.long
    assert isinstance(pool._maps[0], nn.Module)
    assert not any('_maps' in name or 'known' in name
                   for name in model.state_dict())


@pytest.mark.parametrize('value, error, message', [
    ([0, 1, 2], ValueError, 'has 3 entries, but the student 5 classes'),
    ([0, 1, 2, 3, 9], ValueError,
     r"has \[3, 9\], but the teacher's classes are 0 to 2"),
    ([-1] * 5, ValueError, 'knows none.*leave class_map out and set model.'
     'logit_loss=None, .* or leave this teacher out'),
    ([0, 2, -1, -1, 2], ValueError, r"uses the teacher's class 2 for several "
     r'classes of the student, \[1, 4\], so its probability would count '),
    ({1: 0, 3: 0}, ValueError,
     r'class 0 for several classes of the student, \[1, 3\]'),
    ({7: 0}, ValueError, r"names \[7\], but the student's classes are 0 to 4"),
    ('abc', TypeError, 'must be a list'),
    ([0, 1, 2, 1.5, 0], TypeError, 'must be a list'),
])
def test_wrong_maps(tmp_path, value, error, message):
    with pytest.raises(error, match=f"teacher 'few': class_map .*{message}"):
        build([{**few_classes(tmp_path), 'class_map': value}])


def test_other_classes_without_a_map(tmp_path):
    teacher = few_classes(tmp_path)
    del teacher['class_map']
    with pytest.raises(ValueError, match=r"'few' has 3 classes and the "
                       r'student 5; give the teacher class_map=\[...\].* or '
                       'set logit_loss=None'):
        build([teacher])


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('strategy', STRATEGIES)
def test_one_image_of_one_pixel(tmp_path, strategy):
    """Batch norm in the projectors gets a single value for each channel."""
    model = build(toy_teachers(tmp_path), weighting=dict(type=strategy))
    images, labels = World().batch(1)
    losses = model(images, samples(labels), mode='loss')
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert model.distillation.terms[1].projectors[0][0].layers.training


def test_classes_in_another_order_are_refused():
    own = ['sky', 'Road', 'car']
    check_names('t', ('sky', 'road ', 'car'), own)
    check_names('t', ('sky', 'ROAD', 'vehicle'), own)
    with pytest.raises(ValueError, match=(
            r"teacher 't'.*'Road' is the student's class 1 and the teacher's "
            r'2 \(2 of 3 differ\).*class_map=\[0, 2, 1\]')):
        check_names('t', ('sky', 'car', 'road'), own)
    # ImageNet has two cranes.
    check_names('t', ('crane', 'tram', 'crane'), ['crane', 'tram', 'crane'])
    check_names('t', ('sign_symbol', 'a b'), ['Sign symbol', 'AB'])


def test_classes_of_other_names(capsys):
    """Other spellings, another language, or other classes: a warning."""
    own = ['sky', 'road', 'car', 'tree']
    check_names('t', ('a', 'b', 'c', 'd'), own)
    text = ' '.join(capsys.readouterr())
    assert "teacher 't': none of its classes ('a', 'b', 'c', ...)" in text
    assert "('sky', 'road', 'car', ...)" in text
    assert 'class_map=list(range(4))' in text
    check_names('t', ('heaven', 'road', 'auto', 'plant'), own)
    assert 'none of its classes' not in ' '.join(capsys.readouterr())
