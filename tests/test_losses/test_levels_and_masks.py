"""Terms with several levels, and masked maps, compared with loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.losses import (
    CWDLogitLoss,
    CWDLoss,
    DISTLoss,
    FitNetLoss,
    KDLoss,
    MGDLoss,
    NDLoss,
    PKDLoss,
)
from mmkd_rl.records import Output, OutputSpec, Pair, Truth
from mmkd_rl.tasks import SegmentationTask
from tests.toy import spec

#: Valid points of 4x6 images: half of the first, all of the second, a part of
#: the third with a point that counts a half, and none of the last.
VALID = torch.zeros(4, 4, 6)
VALID[0, :, :3] = 1
VALID[1] = 1
VALID[2, 1:3, 2:] = 1
VALID[2, 1, 2] = .5
TRUTH = Truth(None, VALID, (VALID > 0).sum((1, 2)).float())
ALL = Truth(None, None, torch.ones(4))


def draw(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(
        seed))


def softmax(row):
    top = max(row)
    total = sum(math.exp(x - top) for x in row)
    return [math.exp(x - top) / total for x in row]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q) if a > 0)


def points(i):
    return [(h, w, float(VALID[i, h, w])) for h in range(4) for w in range(6)
            if VALID[i, h, w] > 0]


def fitnet(s, t, i):
    total = weight = 0.
    for h, w, share in points(i):
        total += share * sum(float(x)**2 for x in s[:, h, w] - t[:, h, w]
                             ) / len(s)
        weight += share
    return total / weight if weight else 0.


def kd(s, t, i):
    total = weight = 0.
    for h, w, share in points(i):
        p, q = (softmax([float(x) / 4 for x in z[:, h, w]]) for z in (t, s))
        total += share * 16 * kl(p, q)
        weight += share
    return total / weight if weight else 0.


def cwd(s, t, i, temperature=1.):
    if not points(i):
        return 0.
    return temperature**2 * sum(
        kl(*(softmax([float(x[d, h, w]) / temperature
                      for h, w, _ in points(i)])
             for x in (t, s))) for d in range(len(s))) / len(s)


def cwd_logits(s, t, i):
    return cwd(s, t, i, 4.)


CASES = [(FitNetLoss(), fitnet), (KDLoss(), kd), (CWDLoss(), cwd),
         (CWDLogitLoss(), cwd_logits)]
MASKED = pytest.mark.parametrize(
    'term, reference', CASES, ids=[type(t).__name__ for t, _ in CASES])


def masked_pairs(student, teachers):
    return tuple((Pair(student, t, VALID), ) for t in teachers)


@MASKED
def test_masked_against_loops(term, reference):
    student = draw(4, 3, 4, 6)
    teachers = [draw(4, 3, 4, 6, seed=m + 1) for m in range(2)]
    loss = term.compare(masked_pairs(student, teachers), TRUTH)
    assert loss.shape == (4, 2)
    for i in range(4):
        for m, t in enumerate(teachers):
            assert float(loss[i, m]) == pytest.approx(
                reference(student[i], t[i], i), rel=1e-4, abs=1e-6)


@MASKED
def test_an_ignored_region_changes_neither_loss_nor_gradient(term, reference):
    student = draw(4, 3, 4, 6)
    teacher = draw(4, 3, 4, 6, seed=1)
    hidden = (VALID == 0).unsqueeze(1)
    losses, gradients = [], []
    for noise in (0., 1e3):
        x = (student + noise * hidden * draw(4, 3, 4, 6, seed=2)
             ).requires_grad_()
        y = teacher - noise * hidden * draw(4, 3, 4, 6, seed=3)
        loss = term.compare(masked_pairs(x, [y]), TRUTH)
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append(x.grad)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)
    assert not gradients[1].masked_select(hidden).any()
    assert gradients[1].masked_select(~hidden).any()
    # and without the mask it would
    assert not torch.allclose(
        term.compare(((Pair(x, y), ), ), TRUTH), losses[0], rtol=.01)


@MASKED
def test_a_mask_of_ones_is_none(term, reference):
    student, teacher = draw(4, 3, 4, 6), draw(4, 3, 4, 6, seed=1)
    results = []
    for valid in (None, torch.ones(4, 4, 6)):
        x = student.clone().requires_grad_()
        loss = term.compare(((Pair(x, teacher, valid), ), ), ALL)
        loss.sum().backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(*results)


FEATURE_TERMS = pytest.mark.parametrize(
    'term', [FitNetLoss(), CWDLoss(), PKDLoss(), MGDLoss().eval()],
    ids=lambda term: type(term).__name__)


@FEATURE_TERMS
@pytest.mark.parametrize('size', [(4, 6), (2, 2)])
def test_padding_through_the_whole_feature_term(term, size):
    """Images of 8x12 with padding on the right, and coarser maps."""
    torch.manual_seed(0)
    valid = torch.zeros(4, 8, 12)
    valid[:, :, :6] = 1
    truth = Truth(None, valid, valid.sum((1, 2)))
    term.build(spec(shape=(3, 4, 6)), [spec('t', shape=(5, *size))],
               dict(norm=False))
    student, teacher = draw(4, 3, 4, 6), draw(4, 5, *size, seed=1)
    losses = []
    for noise in (0., 9.):
        x, y = student.clone(), teacher.clone()
        x[..., 3:] += noise
        y[..., size[1] // 2:] *= 1 + noise
        x.requires_grad_()
        pairs = term.align(Output((x, )), [Output((y, ))], truth)
        (pair, ), = pairs
        assert pair.valid.shape[1:] == pair.student.shape[2:] == size
        loss = term.compare(pairs, truth)
        loss.sum().backward()
        assert not x.grad[..., 3:].any() and x.grad[..., :3].any()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses)


def test_padding_through_the_whole_logit_term():
    """The resolutions of the teacher's and the student's map differ."""
    valid = torch.zeros(4, 8, 12)
    valid[:, :, :6] = 1
    truth = Truth(None, valid, valid.sum((1, 2)))
    term = KDLoss()
    x = draw(4, 3, 4, 6).requires_grad_()
    y = draw(4, 3, 8, 12, seed=1)
    own = Output(logits=(x, ))
    matched = SegmentationTask().match(own, Output(logits=(y, )))
    loss = term(own, [matched], truth)
    loss.sum().backward()
    assert not x.grad[..., 3:].any() and x.grad[..., :3].any()
    resized = F.interpolate(y, (4, 6), mode='bilinear', align_corners=False,
                            antialias=True)
    torch.testing.assert_close(loss, term(
        Output(logits=(x[..., :3], )),
        [Output(logits=(resized[..., :3], ))], ALL))


def of_level(term, i, pairs):
    """Gaps of one level."""
    generators = getattr(term, 'generators', None)
    if generators is not None:
        term.generators = torch.nn.ModuleList(
            torch.nn.ModuleList([levels[i]]) for levels in generators)
    gaps = term.compare(tuple((levels[i], ) for levels in pairs), TRUTH)
    if generators is not None:
        term.generators = generators
    return gaps


@FEATURE_TERMS
def test_several_levels_of_features(term):
    """The gap is the mean of the levels' gaps, each with its own projector."""
    torch.manual_seed(0)
    shapes, other = ((3, 4, 6), (6, 2, 3)), ((5, 4, 6), (4, 2, 3))
    term.build(OutputSpec('student', shapes),
               [OutputSpec('a', shapes), OutputSpec('b', other)],
               dict(norm=False))
    assert [len(levels) for levels in term.projectors] == [2, 2]
    student = Output(tuple(draw(4, *s) for s in shapes))
    teachers = [Output(tuple(draw(4, *s, seed=1) for s in levels))
                for levels in (shapes, other)]
    pairs = term.align(student, teachers, TRUTH)
    assert [p.valid.shape for p in pairs[0]] == [(4, 4, 6), (4, 2, 3)]
    loss = term.compare(pairs, TRUTH)
    assert loss.shape == (4, 2)
    alone = [of_level(term, i, pairs) for i in range(2)]
    assert not torch.allclose(*alone)
    torch.testing.assert_close(loss, (alone[0] + alone[1]) / 2)
    # r_m of each level is its own
    for m, levels in enumerate(pairs):
        for i, pair in enumerate(levels):
            torch.testing.assert_close(
                pair.student,
                term.projectors[m][i].layers(student.features[i]))
            assert torch.equal(pair.teacher, teachers[m].features[i])


def test_several_levels_of_logits():
    student, teachers = ((draw(4, 5, 4, 6, seed=s), draw(4, 5, 2, 3, seed=s))
                         for s in (0, 1))
    term = KDLoss()
    levels = ((5, 4, 6), (5, 2, 3))
    term.build(OutputSpec('student', logits=levels),
               [OutputSpec('t', logits=levels)])
    loss = term(Output(logits=student), [Output(logits=teachers)], TRUTH)
    alone = [term(Output(logits=(s, )), [Output(logits=(t, ))], TRUTH)
             for s, t in zip(student, teachers)]
    assert loss.shape == (4, 1) and not torch.allclose(*alone)
    torch.testing.assert_close(loss, (alone[0] + alone[1]) / 2)


@FEATURE_TERMS
def test_levels_of_features_that_do_not_pair(term):
    shape = (3, 4, 4)
    name = type(term).__name__
    with pytest.raises(ValueError, match=(
            rf'^{name} compares features level by level, but the student '
            r"has 2 \(\(3, 4, 4\), \(3, 4, 4\)\) and teacher 'b' has 1 "
            r'\(\(3, 4, 4\)\); list the same number of taps in '
            r'taps.feature=\[...\] of both')):
        term.build(OutputSpec('student', (shape, shape)),
                   [OutputSpec('a', (shape, shape)), OutputSpec('b', (shape,
                                                                      ))])


def test_levels_of_logits_that_do_not_pair():
    with pytest.raises(ValueError, match=(
            r'^KDLoss compares logits level by level, but the student has '
            r"1 \(\(5,\)\) and teacher 't' has 2 \(\(5,\), \(5,\)\); list the "
            r'same number of taps in taps.logits=\[...\] of both')):
        KDLoss().build(spec(), [OutputSpec('t', logits=((5, ), (5, )))])


def test_every_level_has_the_students_classes():
    student = OutputSpec('student', logits=((5, 4, 4), (5, 2, 2)))
    KDLoss().build(student, [OutputSpec('t', logits=((5, 2, 2), (5, 1, 1)))])
    with pytest.raises(ValueError, match=(
            r"teacher 't' has \[5, 7\] classes and the student 5; give the "
            r'teacher class_map=\[\.\.\.\]')):
        KDLoss().build(student,
                       [OutputSpec('t', logits=((5, 4, 4), (7, 2, 2)))])


@pytest.mark.parametrize('who', ['student', 't'])
@pytest.mark.parametrize('term', [KDLoss(), DISTLoss()])
def test_logits_that_are_not_there(term, who):
    specs = {name: spec(name) for name in ('student', 't')}
    specs[who] = OutputSpec(who, ((8, 1, 1), ))
    with pytest.raises(ValueError, match=(
            rf"^{type(term).__name__} needs class scores, but '{who}' has "
            r'none.*logit_loss=None.*taps=dict\(logits=')):
        term.build(specs['student'], [specs['t']])


def test_features_that_are_not_there():
    with pytest.raises(ValueError, match=(
            "^FitNetLoss needs features, but 't' has none; "
            r'say where they are with taps=dict\(feature=')):
        FitNetLoss().build(spec(), [OutputSpec('t', logits=((5, ), ))])


def test_what_nd_cannot_take():
    shape = (8, 2, 2)
    with pytest.raises(ValueError, match='NDLoss takes one feature, got 2'):
        NDLoss().build(OutputSpec('student', (shape, shape), ((5, ), )),
                       [spec('t')])
    with pytest.raises(ValueError, match='NDLoss needs images with one class '
                       'each.*FitNetLoss'):
        NDLoss().build(OutputSpec('student', (shape, )), [spec('t')])


def test_dist_leaves_masked_pixels_out():
    """As if the other pixels did not exist; a mask that hides nothing changes
    nothing; the mean over images is the loss of all pixels."""
    z, y = draw(4, 3, 4, 6), draw(4, 3, 4, 6, seed=1)
    noisy = torch.where(VALID[:, None] > 0, y, y + 9)
    got = DISTLoss().compare(((Pair(z, noisy, VALID), ), ), TRUTH)
    hidden = [DISTLoss().compare(((Pair(z, x, VALID), ), ), TRUTH)
              for x in (y, noisy)]
    torch.testing.assert_close(*hidden)
    torch.testing.assert_close(
        DISTLoss().compare(((Pair(z, y, torch.ones(4, 4, 6)), ), ), ALL),
        DISTLoss().compare(((Pair(z, y), ), ), ALL))
    # The columns: all valid pixels of one class.
    q, p = (x.softmax(1).movedim(1, -1).flatten(0, 2).T.double()
            for x in (z, y))
    columns = 1.
    for a, b in zip(q, p):
        (aa, ab), (_, bb) = torch.cov(
            torch.stack([a, b]), aweights=VALID.flatten())
        columns -= ab / (aa * bb).sqrt() / len(q)
    rows = DISTLoss(gamma=0.).compare(((Pair(z, y, VALID), ), ), TRUTH)
    torch.testing.assert_close(
        TRUTH.mean((got - rows)[:, 0]), 2 * columns.float())


def test_a_projector_without_batch_norm():
    """Without batch statistics padding has no effect on valid points."""
    for norm in (False, True):
        torch.manual_seed(0)
        term = FitNetLoss()
        term.build(spec(shape=(3, 4, 6)), [spec('t', shape=(5, 4, 6))],
                   dict(norm=norm))
        x, y = draw(4, 3, 4, 6), draw(4, 5, 4, 6)
        before = term.projectors[0][0](x, y)[0][..., :3]
        x[..., 3:] += 9
        after = term.projectors[0][0](x, y)[0][..., :3]
        assert torch.allclose(before, after) != norm
