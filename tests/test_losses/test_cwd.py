"""CWD compared with its definition; properties of a softmax over space."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from mmkd_rl.losses import CWDLoss, cwd
from mmkd_rl.losses.cwd import channel_divergence
from tests.test_losses.steps import (
    build,
    check_with_strategies,
    of_features,
)
from tests.toy import spec


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
def test_bad_arguments(kwargs, value):
    with pytest.raises(ValueError, match=f'Loss.{value}'):
        CWDLoss(**kwargs)
