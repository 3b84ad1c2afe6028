"""LDLoss and the edges of CrossKDLoss compared with their definitions by
loops; CrossKDLoss runs the teacher's head."""

import math
from dataclasses import replace

import pytest
import torch

from mmkd_rl.losses import BinaryKDLoss, CrossKDLoss, LDLoss
from mmkd_rl.options import ConfigError
from mmkd_rl.records import Output, OutputSpec, Truth

#: Two images; two classes, three distances for each edge; levels of 2x3 and
#: 1x2 locations. The second image has padding on the right.
SIZES = [(2, 3), (1, 2)]
VALID = torch.ones(2, 4, 6)
VALID[1, :, 3:] = 0
TRUTH = Truth(None, VALID, VALID.sum((1, 2)))


def draw(shape, seed):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(
        seed))


def output(seed, width=5):
    return Output(*(tuple(draw((2, c, *size), seed + 10 * c + i)
                          for i, size in enumerate(SIZES))
                    for c in (width, 2, 12)))


def spec(name, width=5, distances=3):
    return OutputSpec(name, *(tuple((c, *size) for size in SIZES)
                              for c in (width, 2)),
                      edges=tuple((4 * distances, *size) for size in SIZES))


def softmax(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def edges(own, theirs, scores, i, temperature):
    """The divergence of an image, from lists of levels."""
    total = count = 0.
    for s, t, z in zip(own, theirs, scores):
        valid = TRUTH.valid_at(z)
        for h in range(z.shape[2]):
            for w in range(z.shape[3]):
                share = float(valid[i, h, w]) * max(
                    1 / (1 + math.exp(-float(x))) for x in z[i, :, h, w])
                count += share
                for e in range(4):
                    q, p = (softmax([float(x[i, 3 * e + n, h, w]) / temperature
                                     for n in range(3)]) for x in (s, t))
                    total += share / 4 * sum(
                        a * math.log(a / b) for a, b in zip(p, q))
    return temperature**2 * total / max(1, count)


@pytest.mark.parametrize('temperature', [10., 1.5])
def test_definition(temperature):
    student, teachers = output(0), [output(3), output(6)]
    term = LDLoss(temperature=temperature)
    term.build(spec('student'), [spec('a'), spec('b')])
    torch.testing.assert_close(
        term(student, teachers, TRUTH), torch.tensor([
            [edges(student.edges, t.edges, t.logits, i, temperature)
             for t in teachers] for i in range(2)]))


def test_where_the_teacher_sees_nothing_nothing_is_learned():
    student, teacher = output(0), output(3)
    for z in teacher.logits:
        z[:] = -30.
    own = [e.requires_grad_() for e in student.edges]
    term = LDLoss()
    term.build(spec('student'), [spec('t')])
    loss = term(student, [teacher], TRUTH)
    loss.sum().backward()
    assert loss.abs().max() < 1e-8
    assert all(e.grad.abs().max() < 1e-8 for e in own)


def test_padding_and_equal_edges():
    student, teacher = output(3), output(3)
    for level in (*student.edges, *teacher.edges, *teacher.logits):
        level[1, ..., -1] = torch.nan
    term = LDLoss()
    term.build(spec('student'), [spec('t')])
    own = [e.requires_grad_() for e in student.edges]
    loss = term(student, [teacher], TRUTH)
    loss.sum().backward()
    assert loss.abs().max() < 1e-5
    assert all(e.grad.abs().max() < 1e-5 for e in own)


def test_edges_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"LDLoss compares.*'t' has none"):
        LDLoss().build(spec('student'), [
            OutputSpec('t', logits=spec('t').logits)])
    with pytest.raises(ConfigError, match=r"'t' has edges.*reg_max"):
        LDLoss().build(spec('student'), [spec('t', distances=4)])


# -------------------------------------------------------------- CrossKDLoss


def crossed(width=4, **kwargs):
    """A term, and the head of its only teacher: a matrix for each kind."""
    torch.manual_seed(0)
    term = CrossKDLoss(**kwargs)
    heads = [torch.randn(c, width, 1, 1) for c in (2, 12)]

    def predict(index, features):
        assert index == 0
        return Output((), *(
            tuple(torch.nn.functional.conv2d(f, head) for f in features)
            for head in heads))

    term.predict = predict
    term.build(spec('student'), [spec('t', width)], dict(norm=False))
    features = output(7, width).features
    return term, predict, Output(
        features, *(getattr(predict(0, features), kind)
                    for kind in ('logits', 'edges')))


def test_the_teachers_head_reads_the_students_features():
    term, predict, teacher = crossed(edge_weight=.3, edge_temperature=2.)
    student = output(0)
    mapped = [p(f, t)[0] for p, f, t in zip(
        term.projectors[0], student.features, teacher.features)]
    through = predict(0, mapped)
    classes = BinaryKDLoss()
    classes.build(spec('student'), [spec('t')])
    expected = classes(through, [teacher], TRUTH)[:, 0] + .3 * torch.tensor([
        edges(through.edges, teacher.edges, teacher.logits, i, 2.)
        for i in range(2)])
    torch.testing.assert_close(term(student, [teacher], TRUTH)[:, 0], expected)


def test_heads_without_distributions():
    term, predict, teacher = crossed()
    term.predict = lambda m, f: Output((), predict(m, f).logits)
    found = term(output(0), [Output(teacher.features, teacher.logits)], TRUTH)
    assert (found > 0).all() and found.shape == (2, 1)


def test_classes_that_the_teacher_does_not_know():
    """Unknown classes have no loss, whatever scores the class map gives
    them."""
    term, predict, teacher = crossed()
    known = torch.tensor([True, False])
    losses = []
    for value in (0., 9.):
        def mapped(m, features, value=value):
            found = predict(m, features)
            logits = tuple(torch.where(known[:, None, None], z, value)
                           for z in found.logits)
            return Output((), logits)

        term.predict = mapped
        term.build(spec('student'), [replace(spec('t', 4), known=known)],
                   dict(norm=False))
        for projector in term.projectors[0]:
            torch.nn.init.ones_(projector.layers[0].weight)
            torch.nn.init.zeros_(projector.layers[0].bias)
        theirs = mapped(0, teacher.features, value=-3.)
        losses.append(term(output(0), [
            Output(teacher.features, theirs.logits)], TRUTH))
    assert losses[0].isfinite().all()
    torch.testing.assert_close(losses[0], losses[1])


def test_equal_features_are_at_rest():
    term, _, teacher = crossed(5)
    with torch.no_grad():
        for projector in term.projectors[0]:
            projector.layers[0].weight.copy_(torch.eye(5)[..., None, None])
            projector.layers[0].bias.zero_()
    own = tuple(f.clone().requires_grad_() for f in teacher.features)
    loss = term(Output(own), [teacher], TRUTH)
    loss.sum().backward()
    assert loss.abs().max() < 1e-5
    assert all(f.grad.abs().max() < 1e-5 for f in own)


def test_heads_that_cannot_be_run():
    with pytest.raises(ConfigError, match=r"of 't' are not read.*scores=True"):
        CrossKDLoss().build(spec('student'), [
            OutputSpec('t', features=spec('t').features)])
    with pytest.raises(ConfigError, match=r"'t' reads 2 levels.*has 1"):
        CrossKDLoss().build(spec('student'), [OutputSpec(
            't', features=spec('t').features[:1], logits=spec('t').logits,
            levels=(0, ))])
