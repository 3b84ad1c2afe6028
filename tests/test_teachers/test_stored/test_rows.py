"""Rows of stored outputs against the exact values."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.records import Output
from mmkd_rl.teachers.stored.rows import RowFormat
from mmkd_rl.utils.pooling import mean_over_space
from tests.test_teachers.test_stored.common import output, round_trip


def kd_gradient(z, student, temperature):
    """Of T^2 KL(p_z || p_student) with respect to the student's scores."""
    return temperature * ((student / temperature).softmax(1)
                          - (z / temperature).softmax(1))


def error_of(z, y, student, temperature):
    exact, own = (kd_gradient(v, student, temperature) for v in (z, y))
    return float((own - exact).norm(dim=1).mean() /
                 exact.norm(dim=1).mean())


@pytest.mark.parametrize('top_k', [None, 10])
def test_the_cross_entropy_is_exact(top_k):
    """The label's score is kept, whatever its rank, and so is the sum."""
    out = output()
    labels = out.logits[0].argsort(1)[:, 3]  # unlikely ones
    back, form = round_trip(out, labels=labels, top_k=top_k)
    z, y = out.logits[0], back.logits[0]
    assert form.top_k == top_k
    for kept in (labels, z.argmax(1)):
        torch.testing.assert_close(
            y.gather(1, kept[:, None]), z.gather(1, kept[:, None]), rtol=0,
            atol=.01)
    torch.testing.assert_close(
        F.cross_entropy(y, labels, reduction='none'),
        F.cross_entropy(z, labels, reduction='none'), rtol=2e-3, atol=0)


@pytest.mark.parametrize('temperature', [1., 4.])
def test_codes_are_as_good_as_exact_for_kd(temperature):
    """Half a step of a range of about 20 is 0.04; against it, the ten
    likeliest classes alone."""
    z = output(256).logits[0]
    student = z + 2 * torch.randn_like(z)
    y = round_trip(Output((), (z, )))[0].logits[0]
    assert error_of(z, y, student, temperature) < .03
    few = round_trip(Output((), (z, )), top_k=10)[0].logits[0]
    assert error_of(z, few, student, temperature) > 3 * error_of(
        z, y, student, temperature)


def test_the_top_k_and_two_sums_are_exact():
    """Against a slow search of the two levels."""
    z = output(8).logits[0].double()
    labels = z.argmax(1)
    y = round_trip(Output((), (z.float(), )), labels=labels,
                   top_k=10)[0].logits[0].double()
    top = z.topk(11)[1]
    torch.testing.assert_close(y.gather(1, top), z.gather(1, top), rtol=0,
                               atol=.01)
    for t in (1., 4.):
        torch.testing.assert_close((y / t).logsumexp(1), (z / t).logsumexp(1),
                                   rtol=0, atol=.004)
    others = y.scatter(1, top, torch.nan)
    assert all(len(row[row.isfinite()].unique()) == 2 for row in others)
    # One level that is right at T = 1 is wrong at T = 4.
    rest = z.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    flat = (rest - np.log(89)).expand(-1, 100).scatter(
        1, top, z.gather(1, top))
    assert ((flat / 4).logsumexp(1) - (z / 4).logsumexp(1)).mean() > .1


def test_a_confident_teacher():
    """Probabilities near 1 keep their distance from it: log p in half
    precision has the digits there, a score would not."""
    z = torch.zeros(1, 100)
    z[0, 7] = 15.
    for top_k in (None, 10):
        y = round_trip(Output((), (z, )), labels=torch.tensor([7]),
                       top_k=top_k)[0].logits[0]
        exact, own = (-v.double().log_softmax(1)[0, 7] for v in (z, y))
        torch.testing.assert_close(own, exact, rtol=.02, atol=0)


@pytest.mark.parametrize('labels', [None, torch.full((6, ), -1)])
@pytest.mark.parametrize('top_k', [None, 10])
def test_without_labels(labels, top_k):
    z = output().logits[0]
    y = round_trip(output(), labels=labels, top_k=top_k)[0].logits[0]
    value, index = z.topk(10)
    torch.testing.assert_close(y.gather(1, index), value, rtol=0, atol=.05)


@pytest.mark.parametrize('classes, kept', [(10, False), (22, False),
                                           (30, False), (100, True)])
def test_the_top_k_are_stored_where_they_are_smaller(classes, kept):
    assert (round_trip(output(classes=classes), top_k=10)[1].top_k
            is not None) == kept


@pytest.mark.parametrize('classes', [1, 2, 300])
def test_numbers_of_classes(classes):
    out = output(classes=classes)
    back, _ = round_trip(out, labels=torch.full((6, ), classes - 1))
    torch.testing.assert_close(back.logits[0], out.logits[0], rtol=0,
                               atol=.06)
    assert torch.equal(back.logits[0].argmax(1), out.logits[0].argmax(1))


def test_scores_in_half_precision_and_of_pixels():
    out = output()
    for scores, atol in (('float16', .01), ('float32', 0.)):
        torch.testing.assert_close(
            round_trip(out, scores=scores)[0].logits[0], out.logits[0],
            rtol=0, atol=atol)
    dense = Output((), (torch.randn(2, 5, 3, 3), ))
    back, form = round_trip(dense, top_k=10)
    assert (form.scores, form.top_k) == ('float16', None)
    torch.testing.assert_close(back.logits[0], dense.logits[0], rtol=0,
                               atol=.01)


@pytest.mark.parametrize('kind, atol', [
    ('float32', 0.), ('float16', 2e-3), ('uint8', .01)])
def test_feature_maps(kind, atol):
    out = output()
    back, _ = round_trip(out, kind)
    torch.testing.assert_close(back.features[0], out.features[0], rtol=0,
                               atol=atol)
    constant = Output((torch.full((2, 3, 2, 2), 5.), ), out.logits)
    same, _ = round_trip(
        Output(constant.features, (out.logits[0][:2], )), kind)
    torch.testing.assert_close(same.features[0], constant.features[0])


def test_averages_of_features():
    out = output()
    back, form = round_trip(out, 'pooled')
    assert back.features[0].shape == (6, 8, 1, 1)
    torch.testing.assert_close(
        mean_over_space(back.features[0]), mean_over_space(out.features[0]),
        rtol=1e-3, atol=1e-4)
    vector = Output((torch.randn(6, 8), ), out.logits)
    assert round_trip(vector, 'pooled')[0].features[0].shape == (6, 8)


def test_bytes_of_a_view():
    """Of CIFAR-100, logits and the averages of 64 channels."""
    out = Output((torch.randn(2, 64, 8, 8), ), (torch.randn(2, 100), ))
    alone = Output((), out.logits)
    assert [RowFormat.of(*args).dtype.itemsize for args in (  # per view
        (alone, 'pooled', 'uint8', 10), (alone, 'pooled'),
        (out, 'pooled'))] == [51, 115, 115 + 128]


def test_another_size_is_refused():
    form = RowFormat.of(output(), 'float16')
    with pytest.raises(ValueError, match='all images must have one size'):
        form.encode(output(side=5), None)


def test_features_that_are_too_large(tmp_path):
    out = Output((torch.full((1, 2, 2, 2), 1e6), ), (torch.zeros(1, 5), ))
    for kind, finite in (('float16', False), ('float32', True),
                         ('uint8', True)):
        back, _ = round_trip(out, kind)
        assert bool(back.features[0].isfinite().all()) == finite
