"""CWD of features and of score maps, compared with its definition; properties
of a softmax over space."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from mmkd_rl.losses import CWDLogitLoss, CWDLoss, cwd
from mmkd_rl.losses.cwd import channel_divergence
from mmkd_rl.records import Output, OutputSpec, Truth
from mmkd_rl.registry import TASKS
from mmkd_rl.tasks import ClassificationTask
from tests.test_losses.steps import (
    build,
    check_with_strategies,
    of_features,
    of_logits,
)
from tests.toy import CLASSES, spec


@pytest.fixture
def pairs():
    g = torch.Generator().manual_seed(0)
    return [(2 * torch.randn(4, d, 3, 2, generator=g),
             2 * torch.randn(4, d, 3, 2, generator=g)) for d in (5, 7)]


@pytest.mark.parametrize('temperature', [.5, 1., 4.])
def test_against_the_definition(pairs, temperature):
    loss = of_features(CWDLoss(temperature), pairs)
    assert loss.shape == (4, 2)
    for m, (student, teacher) in enumerate(pairs):
        for i in range(4):
            total = 0.
            for s, t in zip(student[i].double().numpy(),
                            teacher[i].double().numpy()):
                total += rel_entr(
                    softmax(t.ravel() / temperature),
                    softmax(s.ravel() / temperature)).sum()
            assert float(loss[i, m]) == pytest.approx(
                temperature**2 * total / len(student[i]), rel=1e-4)


def test_a_student_that_is_the_teacher_is_at_rest(pairs):
    x = pairs[0][1].clone().requires_grad_()
    loss = of_features(CWDLoss(), [(x, pairs[0][1])])
    assert loss.abs().max() < 1e-5
    loss.sum().backward()
    assert x.grad.abs().max() < 1e-6


def test_channels_may_be_shifted_and_points_reordered(pairs):
    student, teacher = pairs[0]
    before = of_features(CWDLoss(), [(student, teacher)])
    assert (before > 1e-3).all()
    shift = torch.arange(5.)[:, None, None]
    torch.testing.assert_close(
        of_features(CWDLoss(), [(student + shift, teacher - 2 * shift)]),
        before)
    torch.testing.assert_close(
        of_features(CWDLoss(), [(student.flip(3), teacher.flip(3))]), before)
    assert not torch.allclose(
        of_features(CWDLoss(), [(student.flip(3), teacher)]), before)


def test_a_point_has_no_elsewhere(pairs):
    loss = of_features(
        CWDLoss(), [(s[..., :1, :1], t[..., :1, :1]) for s, t in pairs])
    assert loss.shape == (4, 2) and not loss.any()


def test_dense_logits_of_any_shape():
    """The function works for any number of classes and dimensions."""
    x, y = torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    torch.testing.assert_close(
        channel_divergence(x, y, 2.),
        channel_divergence(x.view(2, 6, 5, 1), y.view(2, 6, 5, 1), 2.))
    assert np.isfinite(channel_divergence(1e4 * x, -1e4 * y, 1.)).all()


def test_one_number_per_sample(pairs):
    whole = of_features(CWDLoss(), pairs)
    for i in range(4):
        for m, (s, t) in enumerate(pairs):
            one = of_features(CWDLoss(), [(s[i:i + 1], t[i:i + 1])])
            assert one.shape == (1, 1)
            torch.testing.assert_close(one[0, 0], whole[i, m])


def test_half_precision_is_computed_in_float32(pairs):
    half = [(s.bfloat16(), t.bfloat16()) for s, t in pairs]
    loss = of_features(CWDLoss(), half)
    assert loss.dtype == torch.float32
    assert torch.equal(
        loss,
        of_features(CWDLoss(), [(s.float(), t.float()) for s, t in half]))


@pytest.mark.parametrize('kwargs', [
    dict(), dict(size=1, logit_loss=None), dict(count=1),
    dict(dtype=torch.bfloat16)
])
def test_with_strategies(kwargs):
    check_with_strategies(feature_loss=dict(type='CWDLoss'), **kwargs)


def test_vectors_fail_when_the_model_is_built():
    with pytest.raises(ValueError, match="of 't1' is a vector; tap a layer"):
        CWDLoss().build(spec(shape=(8, 2, 2)), [
            spec('t0', shape=(8, 2, 2)),
            spec('t1', shape=(8, ))
        ])
    with pytest.raises(ValueError, match="of 'student' is a vector"):
        build(feature_loss=dict(type='CWDLoss'),
              taps=dict(feature='neck'))
    with pytest.raises(ValueError, match='is a vector'):
        of_features(CWDLoss(), [(torch.zeros(2, 3), torch.zeros(2, 3))])


def test_maps_of_one_point_are_warned_of(monkeypatch):
    said = []
    monkeypatch.setattr(cwd, 'print_log', lambda text, *_: said.append(text))
    CWDLoss().build(spec(shape=(8, 2, 2)), [spec('tiny')])
    assert len(said) == 1 and "'tiny' has a single pixel" in said[0]


@pytest.mark.parametrize('kwargs, value', [
    (dict(temperature=0.), r'temperature must be > 0, got 0\.0'),
    (dict(loss_weight=-1), 'loss_weight must be >= 0, got -1'),
])
@pytest.mark.parametrize('kind', [CWDLoss, CWDLogitLoss])
def test_bad_arguments(kind, kwargs, value):
    with pytest.raises(ValueError, match=f'^{kind.__name__}.{value}'):
        kind(**kwargs)


# ---- score maps ----------------------------------------------------------


@pytest.fixture
def scores():
    """Score maps of the student, [B, C, 3, 2], and of teachers, [B, M, ...]"""
    g = torch.Generator().manual_seed(0)
    return (3 * torch.randn(4, 5, 3, 2, generator=g),
            3 * torch.randn(4, 2, 5, 3, 2, generator=g))


def test_logits_against_the_definition(scores):
    """By loops, at the authors' temperature; one number per image."""
    assert CWDLogitLoss().loss_weight == 3
    student, teachers = scores
    loss = of_logits(CWDLogitLoss(), student, teachers)
    assert loss.shape == (4, 2)
    for i in range(4):
        for m in range(2):
            total = 0.
            for c in range(5):
                p, q = (softmax(z[c].double().numpy().ravel() / 4)
                        for z in (teachers[i, m], student[i]))
                for a, b in zip(p, q):
                    total += a * np.log(a / b)
            assert float(loss[i, m]) == pytest.approx(16 * total / 5, rel=1e-4)


def test_logits_are_compared_as_features_are(scores):
    """In the mean over levels, too."""
    student, teachers = scores
    coarse = student[..., :1]
    loss = CWDLogitLoss()(
        Output(logits=(student, coarse)),
        [Output(logits=(teachers[:, 0], teachers[:, 0, ..., :1]))],
        Truth(None, None, torch.ones(4)))
    torch.testing.assert_close(loss[:, 0], (
        channel_divergence(student, teachers[:, 0], 4.) +
        channel_divergence(coarse, teachers[:, 0, ..., :1], 4.)) / 2)


def test_a_student_with_the_teachers_scores_is_at_rest(scores):
    x = scores[0].clone().requires_grad_()
    # the same but for a constant in each channel
    shift = torch.arange(5.)[:, None, None]
    loss = of_logits(CWDLogitLoss(), x, (scores[0] + shift).unsqueeze(1))
    assert loss.abs().max() < 1e-5
    loss.sum().backward()
    assert x.grad.abs().max() < 1e-6


def test_unknown_classes_are_left_out(scores):
    """A teacher with a class map: channels of classes that it does not know
    cost nothing, whatever its scores there, and get no gradient."""
    known = torch.tensor([True, False, True, True, False])
    shapes = ((5, 3, 2), )
    term = CWDLogitLoss()
    term.build(OutputSpec('student', logits=shapes),
               [OutputSpec('t', logits=shapes, known=known)])
    x = scores[0].clone().requires_grad_()
    teacher = scores[1][:, 0].clone()
    teacher[:, ~known] = torch.nan
    loss = of_logits(term, x, teacher.unsqueeze(1))
    torch.testing.assert_close(loss[:, 0], 3 / 5 * channel_divergence(
        x[:, known], teacher[:, known], 4.))
    loss.sum().backward()
    assert x.grad[:, ~known].abs().max() < 1e-6 < x.grad[:, known].abs().max()


def test_logits_in_half_precision_and_without_valid_pixels(scores):
    valid = torch.ones(4, 3, 2)
    valid[1] = 0
    x = scores[0].bfloat16().requires_grad_()
    loss = CWDLogitLoss()(
        Output(logits=(x, )), [Output(logits=(scores[1][:, 0], ))],
        Truth(None, valid, valid.sum((1, 2))))
    assert loss.dtype == torch.float32 and loss[1] == 0 and loss[0] > 0
    loss.sum().backward()
    assert x.grad.isfinite().all() and not x.grad[1].any()


def test_class_scores_without_space_are_refused():
    maps = OutputSpec('student', logits=((5, 2, 2), ))
    with pytest.raises(ValueError, match=(
            "^CWDLogitLoss compares score maps .* of 't' are one vector an "
            'image; use KDLoss, DISTLoss or DKDLoss')):
        CWDLogitLoss().build(maps, [OutputSpec('t', logits=((5, ), ))])
    with pytest.raises(ValueError, match="^model.logit_loss.*of 'student'"):
        build(logit_loss=dict(type='CWDLogitLoss'))
    with pytest.raises(ValueError, match='one vector'):
        of_logits(CWDLogitLoss(), torch.zeros(2, 3), torch.zeros(2, 1, 3))


@TASKS.register_module(force=True)
class ScoreMapTask(ClassificationTask):
    """Images with one label whose class scores are maps: the backbone's
    output. An image's prediction is the mean of its map."""

    def check(self, spec, images):
        """Maps are what this task is about."""

    def logit_taps(self, model, key):
        return 'backbone'

    def quality(self, output, truth):
        return super().quality(pooled(output), truth)

    def entropy(self, output, truth):
        return super().entropy(pooled(output), truth)

    def logit_gradient(self, output, truth):
        gradient, = super().logit_gradient(pooled(output), truth)
        return (gradient[..., None, None].expand_as(output.logits[0]) / 4, )

    def inner_product(self, a, b_BM, truth):
        return (a.unsqueeze(1) * b_BM).sum((2, 3, 4))

    def logit_summary(self, output, truth):
        return pooled(output).logits[0]


def pooled(output):
    return Output(logits=tuple(z.mean((2, 3)) for z in output.logits))


@pytest.mark.parametrize('kwargs', [
    dict(), dict(size=1, feature_loss=None), dict(count=1),
    dict(dtype=torch.bfloat16)
])
def test_logits_with_strategies(kwargs):
    check_with_strategies(
        width=CLASSES, widths=(CLASSES, ) * 3,
        task=dict(type='ScoreMapTask'),
        logit_loss=dict(type='CWDLogitLoss'), **kwargs)
