"""Arithmetic of the mixture, with vectors as features."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from mmkd_rl.flow.fusion import Candidate, Fusion
from mmkd_rl.flow.transform import Layout

VECTOR = Layout('vector', 3, 0, (3, ))


def fusion(teachers=(0, 1, 1), **kwargs):
    """Fusion with one candidate for each entry, which is its teacher."""
    return Fusion('layer', VECTOR, [
        Candidate(m, f't{m}:layer{i}', i, Layout('vector', 4, 0, (4, )))
        for i, m in enumerate(teachers)], **kwargs)


@pytest.mark.parametrize('scale', [0., 1., 30., 300.])
@pytest.mark.parametrize('strength', [1., .999, .3, 1e-6, 0.])
@pytest.mark.parametrize('active', [
    (True, True), (True, False), (False, True), (False, False)])
def test_weights_sum_to_one_whatever_is_learned(scale, strength, active):
    f = fusion()
    f.logits.data = scale * torch.randn(4)
    p = f.weights(active, strength)
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    assert (p >= 0).all()
    for share, candidate in zip(p[1:], f.candidates):
        if not active[candidate.teacher]:
            assert share == 0
    if strength == 0 or not any(active):
        assert torch.equal(p, torch.tensor([1., 0., 0., 0.]))


def test_weights_are_a_softmax_of_those_who_take_part():
    f = fusion()
    f.logits.data = torch.tensor([.3, -1., 2., .7])
    e = [math.exp(x) for x in (.3, -1., 2., .7)]
    want = [x / sum(e) for x in e]
    assert f.weights((True, True), 1.).tolist() == pytest.approx(want)
    # Teacher 1 is retired: the others get its share in proportion to theirs.
    two = e[0] + e[1]
    assert f.weights((True, False), 1.).tolist() == pytest.approx(
        [e[0] / two, e[1] / two, 0, 0])
    # p'(l) = a p(l), the student has the rest.
    half = [1 - .5 * sum(want[1:]), *(.5 * x for x in want[1:])]
    assert f.weights((True, True), .5).tolist() == pytest.approx(half)


def test_mixture_against_the_paper_s_sum():
    f = fusion()
    f.logits.data = torch.randn(4)
    own = torch.randn(5, 3)
    features = [torch.randn(5, 4) for _ in range(3)]
    p = f.logits.detach().double().softmax(0)
    want = p[0] * own.double()
    for i, z in enumerate(features):
        q = f.transforms[i].weight.detach().double()
        for b in range(5):
            want[b] += p[i + 1] * (q @ z[b].double())
    got = f(own, features, f.weights((True, True), 1.))
    torch.testing.assert_close(got.double(), want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('active, strength', [
    ((False, False), 1.), ((False, False), .5), ((True, True), 0.)])
def test_a_student_that_is_alone_is_its_own_self_bit_for_bit(
        active, strength):
    f = fusion()
    f.logits.data = 5 * torch.randn(4)
    own = torch.randn(5, 3)
    features = [torch.randn(5, 4) if active[c.teacher] else None
                for c in f.candidates]
    assert torch.equal(f(own, features, f.weights(active, strength)), own)


@pytest.mark.parametrize('active', [(True, True), (True, False)])
@pytest.mark.parametrize('strength', [1., .4])
def test_gradients_against_finite_differences(active, strength):
    f = fusion().double()
    own = torch.randn(2, 3).double().requires_grad_()
    features = [torch.randn(2, 4).double() if active[c.teacher] else None
                for c in f.candidates]

    def mixed(own, w, *qs):
        weights = w.double()
        gone = [False, *(not active[c.teacher] for c in f.candidates)]
        p = weights.masked_fill(torch.tensor(gone), -torch.inf).softmax(0)
        return f(own, features, torch.cat(
            [1 - strength * p[1:].sum(0, keepdim=True), strength * p[1:]]))

    w = torch.randn(4).double().requires_grad_()
    assert gradcheck(mixed, (own, w))

    # weights(), which computes in float32, has the same gradient.
    f.logits.data = w.detach().clone()
    f(own, features, f.weights(active, strength)).pow(2).sum().backward()
    want, = torch.autograd.grad(mixed(own, w).pow(2).sum(), w)
    torch.testing.assert_close(f.logits.grad, want, rtol=1e-4, atol=1e-4)
    for c, q in zip(f.candidates, f.transforms):
        assert (q.weight.grad is not None) == active[c.teacher]


def test_no_gradient_is_nan_when_somebody_has_left():
    f = fusion()
    f.log_weights((False, True))[0].backward()
    assert f.logits.grad.isfinite().all() and f.logits.grad[1] == 0
    f.logits.grad = None
    f.weights((False, False), .5)[0].backward()
    assert torch.equal(f.logits.grad, torch.zeros(4))


@pytest.mark.parametrize('p', [.01, .5, .9, .999])
@pytest.mark.parametrize('teachers', [(0, ), (0, 1, 1)])
@pytest.mark.parametrize('gain', [1., 10.])
def test_student_weight_is_what_it_begins_with(p, teachers, gain):
    weights = fusion(teachers, student_weight=p, gain=gain).weights(
        (True, True), 1.)
    assert weights[0].item() == pytest.approx(p, rel=1e-5)
    rest = (1 - p) / len(teachers)
    assert weights[1:].tolist() == pytest.approx([rest] * len(teachers),
                                                 rel=1e-4)


def test_without_it_all_are_equal():
    assert fusion((0, )).weights((True, ), 1.).tolist() == [.5, .5]
    assert fusion().weights((True, True), 1.).tolist() == [.25] * 4


def test_gain_multiplies_a_step_of_sgd_by_its_square():
    steps = []
    for gain in (1., 7.):
        f = fusion(gain=gain)
        before = f.log_weights((True, True)).detach()
        f.log_weights((True, True))[0].backward()
        f.logits.data -= 1e-4 * f.logits.grad
        steps.append(f.log_weights((True, True)).detach() - before)
    torch.testing.assert_close(steps[1], 49 * steps[0], rtol=1e-2, atol=1e-5)


def test_the_student_s_precision_is_kept():
    f = fusion((0, ))
    own, z = torch.randn(2, 3).bfloat16(), torch.randn(2, 4)
    assert f(own, [z], f.weights((True, ), 1.)).dtype == torch.bfloat16


def test_names():
    assert fusion().names == ('student', 't0:layer0', 't1:layer1',
                              't1:layer2')


def test_trust_is_what_the_student_has_lost():
    """Trust is 0 if the student's p is the initial one, 1 if it is at most
    half of that, and linear between."""
    fusion = Fusion('x', Layout('vector', 2), [
        Candidate(0, 'a:x', 0, Layout('vector', 2)),
        Candidate(1, 'b:x', 0, Layout('vector', 2))], student_weight=.4)
    for p, trust in ((.8, 0.), (.4, 0.), (.3, .5), (.2, 1.), (.1, 1.)):
        rest = (1 - p) / 2
        fusion.logits.data = torch.tensor([p, rest, rest]).log()
        got = fusion.trust([True, True])
        torch.testing.assert_close(got, torch.tensor(trust), atol=1e-6,
                                   rtol=0)
        assert not got.requires_grad
    assert fusion.trust([False, False]) == 0
