"""BinaryKDLoss compared with its definition by loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.losses import BinaryKDLoss
from mmkd_rl.losses.binary_kd import binary_divergence
from mmkd_rl.options import ConfigError
from mmkd_rl.records import Output, OutputSpec, Pair, Truth
from tests.test_losses.steps import build

#: Two levels of two images, of 2x3 and 1x2 locations; the second image has
#: padding on the right.
SHAPES = [(2, 4, 2, 3), (2, 4, 1, 2)]
VALID = torch.ones(2, 4, 6)
VALID[1, :, 4:] = 0
TRUTH = Truth(None, VALID, VALID.sum((1, 2)))


def draw(shape, seed):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(
        seed))


def outputs(seed):
    return Output(logits=tuple(draw(s, seed + i)
                               for i, s in enumerate(SHAPES)))


def term(count=1, **kwargs):
    made = BinaryKDLoss(**kwargs)
    logits = tuple(s[1:] for s in SHAPES)
    made.build(OutputSpec('student', logits=logits),
               [OutputSpec('t', logits=logits)] * count)
    return made


def sigmoid(x):
    return 1 / (1 + math.exp(-float(x)))


def reference(student, teacher, i, temperature, gamma):
    total = count = 0.
    for own, theirs in zip(student.logits, teacher.logits):
        valid = TRUTH.valid_at(own)
        for h in range(own.shape[2]):
            for w in range(own.shape[3]):
                share = float(valid[i, h, w])
                count += share * max(sigmoid(z) for z in theirs[i, :, h, w])
                for c in range(4):
                    p = sigmoid(theirs[i, c, h, w] / temperature)
                    q = sigmoid(own[i, c, h, w] / temperature)
                    total += share * abs(p - q)**gamma * (
                        p * math.log(p / q) +
                        (1 - p) * math.log((1 - p) / (1 - q)))
    return temperature**2 * total / max(1, count)


@pytest.mark.parametrize('temperature, gamma', [(1., 1.), (3., 0.), (2., 2.)])
def test_definition(temperature, gamma):
    student, teachers = outputs(0), [outputs(5), outputs(9)]
    found = term(2, temperature=temperature, gamma=gamma)(
        student, teachers, TRUTH)
    torch.testing.assert_close(found, torch.tensor([
        [reference(student, t, i, temperature, gamma) for t in teachers]
        for i in range(2)]))


def test_few_objects_are_counted_as_one():
    """N_m of an image on which the teacher finds nothing is not near zero."""
    student, nothing = outputs(0), Output(logits=tuple(
        torch.full(s, -20.) for s in SHAPES))
    found = term(gamma=0.)(student, [nothing], TRUTH)
    own = sum((F.softplus(z).sum(1) * TRUTH.valid_at(z)).flatten(1).sum(1)
              for z in student.logits)
    torch.testing.assert_close(found[:, 0], own, rtol=1e-4, atol=1e-4)


def test_gradient_is_that_of_binary_cross_entropy():
    """With gamma 0, but for the teacher's count."""
    teacher = outputs(5)
    own = [z.requires_grad_() for z in outputs(0).logits]
    count = sum((z.sigmoid().amax(1) * TRUTH.valid_at(z)).sum((1, 2))
                for z in teacher.logits)
    loss = term(gamma=0.)(Output(logits=tuple(own)), [teacher], TRUTH)
    found = torch.autograd.grad(loss.sum(), own)
    entropy = sum(
        (F.binary_cross_entropy_with_logits(z, t.sigmoid(), reduction='none')
         * TRUTH.valid_at(z)[:, None]).flatten(1).sum(1) / count
        for z, t in zip(own, teacher.logits))
    for a, b in zip(found, torch.autograd.grad(entropy.sum(), own)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('gamma', [0., .5, 1., 2.])
def test_equal_scores_are_at_rest(gamma):
    own = [z.requires_grad_() for z in outputs(0).logits]
    loss = term(gamma=gamma)(
        Output(logits=tuple(own)), [outputs(0)], TRUTH)
    grads = torch.autograd.grad(loss.sum(), own)
    assert loss.abs().max() < 1e-6
    assert all(g.abs().max() < 1e-6 for g in grads)


@pytest.mark.parametrize('value', [1e5, torch.inf, torch.nan])
def test_padding_is_left_out(value):
    student, teacher = outputs(0), outputs(5)
    expected = term()(student, [teacher], TRUTH)
    for output in (student, teacher):
        output.logits[0][1, :, :, 2] = value
    own = student.logits[0].requires_grad_()
    found = term()(student, [teacher], TRUTH)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.grad(found.sum(), own)[0].isfinite().all()


def test_large_scores():
    """No infinite logarithm where a float32 sigmoid is 0 or 1."""
    own = torch.full((1, 1, 1, 2), 200.).requires_grad_()
    pair = Pair(own, torch.tensor([[[[-200., 200.]]]]))
    loss = BinaryKDLoss().compare(((pair, ), ), TRUTH)
    torch.testing.assert_close(loss, torch.tensor([[200.]]))
    assert torch.autograd.grad(loss.sum(), own)[0].isfinite().all()


def test_classes_that_a_teacher_does_not_know():
    """Channels of classes that the teacher was not trained on have no
    gradient."""
    logits = tuple(s[1:] for s in SHAPES)
    made = BinaryKDLoss()
    made.build(OutputSpec('student', logits=logits), [
        OutputSpec('t', logits=logits,
                   known=torch.tensor([True, False, True, True]))])
    own = [z.requires_grad_() for z in outputs(0).logits]
    loss = made(Output(logits=tuple(own)), [outputs(5)], TRUTH)
    for grad in torch.autograd.grad(loss.sum(), own):
        assert not grad[:, 1].any() and grad[:, 0].any()
    # Unknown classes do not count as objects, for student and teacher alike.
    seen = [z.detach().clone() for z in own]
    for z in seen:
        z[:, 1] = 9.
    torch.testing.assert_close(
        made(Output(logits=tuple(seen)), [outputs(5)], TRUTH), loss.detach())


def test_scores_for_a_softmax_are_refused():
    with pytest.raises(ConfigError, match=r'through a sigmoid each.*KDLoss'):
        build(losses=[dict(type='BinaryKDLoss')])


@pytest.mark.parametrize('temperature', [1., 2.])
@pytest.mark.parametrize('gamma', [0., .5, 1., 2.])
def test_the_gradient_is_that_of_the_definition(temperature, gamma):
    """The gradient is that which autograd finds for the formula."""
    student, teacher, valid = draw((2, 4, 2, 3), 0), draw((2, 4, 2, 3), 1), \
        torch.tensor([1., 0.]).view(2, 1, 1).expand(2, 2, 3).clone()
    valid[1, 0, 0] = .5
    grads = []
    for own in (student.clone().requires_grad_(),
                student.double().requires_grad_()):
        if own.dtype == torch.float:
            total, _ = binary_divergence(
                Pair(own, teacher, valid), temperature, gamma)
        else:
            p, q = teacher.double() / temperature, own / temperature
            divergence = p.sigmoid() * (F.logsigmoid(p) - F.logsigmoid(q)) + (
                -p).sigmoid() * (F.logsigmoid(-p) - F.logsigmoid(-q))
            total = temperature**2 * (
                (p.sigmoid() - q.sigmoid()).abs()**gamma * divergence *
                valid[:, None]).flatten(1).sum(1)
        grads.append(torch.autograd.grad(
            total, own, torch.tensor([3., -2.]).to(own))[0])
    torch.testing.assert_close(grads[0], grads[1].float(), rtol=1e-4,
                               atol=1e-6)
