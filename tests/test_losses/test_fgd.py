"""FGD compared with its definition by loops; where objects lie."""

import math

import pytest
import torch

from mmkd_rl.losses import FGDLoss
from mmkd_rl.losses.fgd import GlobalContext, object_regions
from mmkd_rl.options import ConfigError
from mmkd_rl.records import Output, Pair, Truth
from tests.test_losses.steps import build as build_distiller
from tests.toy import spec

#: Objects of three images, in shares of their sides, and classes: two that
#: overlap; one of less than a cell, and one outside; none.
OBJECTS = torch.tensor([
    [[0., 0., .5, .5, 1], [.3, .2, .9, .9, 0]],
    [[.6, .4, .6, .4, 2], [1.2, .1, 1.4, .2, 0]],
    [[-1., -1, -1, -1, -1], [-1., -1, -1, -1, -1]]])
#: Valid pixels of three 4x5 images: all, all but the last column, some.
VALID = torch.ones(3, 4, 5)
VALID[1, :, 4] = 0
VALID[2, 2:] = 0
WIDTHS = (3, 2)
NUMBERS = dict(alpha=.3, beta=.2, gamma=.5)


def draw(*shape, seed=0):
    return 2 * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed))


def built(widths=WIDTHS, **kwargs):
    """A term for teachers with maps [D, 4, 5]."""
    torch.manual_seed(0)
    term = FGDLoss(**kwargs)
    term.build(spec(shape=(3, 4, 5)), [
        spec(f't{m}', shape=(d, 4, 5)) for m, d in enumerate(widths)
    ], dict(norm=False))
    return term


def truth(objects=OBJECTS, valid=VALID):
    return Truth(objects, valid, valid.sum((1, 2)))


@pytest.fixture
def pairs():
    return [(draw(3, d, 4, 5, seed=d), draw(3, d, 4, 5, seed=9 - d))
            for d in WIDTHS]


def of(term, pairs, given=None):
    given = truth() if given is None else given
    return term.compare(
        tuple((Pair(s, t, given.valid), ) for s, t in pairs), given)


def points(i):
    return [(h, w) for h in range(4) for w in range(5) if VALID[i, h, w] > 0]


def softmax(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def attentions(x, i):
    """A^sp by point, and A^ch, of a map [D, H, W]."""
    places = points(i)
    looks = softmax([sum(abs(float(x[d, h, w])) for d in range(len(x)))
                     / len(x) / .5 for h, w in places])
    channels = softmax([sum(abs(float(x[d, h, w])) for h, w in places)
                        / len(places) / .5 for d in range(len(x))])
    return ({p: a * len(places) for p, a in zip(places, looks)},
            [a * len(x) for a in channels])


def regions(i):
    """M and B by point."""
    inside = dict.fromkeys(points(i), 0.)
    for x1, y1, x2, y2, label in OBJECTS[i].tolist():
        if label < 0:
            continue
        rows = range(math.floor(y1 * 4),
                     max(math.ceil(y2 * 4), math.floor(y1 * 4) + 1))
        columns = range(math.floor(x1 * 5),
                        max(math.ceil(x2 * 5), math.floor(x1 * 5) + 1))
        cells = [(h, w) for h in rows for w in columns if h < 4 and w < 5]
        for p in cells:
            if p in inside:
                inside[p] = max(inside[p], 1 / len(cells))
    rest = sum(m == 0 for m in inside.values())
    return inside, {p: (m == 0) / rest for p, m in inside.items()}


def focal(s, t, i):
    inside, outside = regions(i)
    space_t, channels_t = attentions(t, i)
    space_s, channels_s = attentions(s, i)
    total = sum(
        (.3 * inside[h, w] + .2 * outside[h, w]) * space_t[h, w] *
        channels_t[d] * float(t[d, h, w] - s[d, h, w])**2
        for h, w in points(i) for d in range(len(t)))
    return total + .5 * (
        sum(abs(space_t[p] - space_s[p]) for p in space_t) +
        sum(abs(a - b) for a, b in zip(channels_t, channels_s)))


def context(x, block, i):
    """R of a map [D, H, W] at each valid point."""
    shares = softmax([
        float(block.look.bias) + sum(
            float(block.look.weight[0, d, 0, 0] * x[d, h, w])
            for d in range(len(x))) for h, w in points(i)])
    pooled = torch.stack([
        sum(a * x[d, h, w] for a, (h, w) in zip(shares, points(i)))
        for d in range(len(x))])
    first, scale, _, last = block.add
    hidden = first.weight @ pooled + first.bias
    hidden = (hidden - hidden.mean()) / (
        hidden.var(unbiased=False) + 1e-5).sqrt() * scale.weight + scale.bias
    added = last.weight @ hidden.clamp_min(0) + last.bias
    return {p: x[:, p[0], p[1]] + added for p in points(i)}


def test_focal_part(pairs):
    term = built(**NUMBERS, lambda_global=0.)
    assert not hasattr(term, 'contexts')
    expected = torch.tensor([[focal(s[i], t[i], i) for s, t in pairs]
                             for i in range(3)])
    torch.testing.assert_close(of(term, pairs), expected)


@torch.no_grad()
def test_global_part(pairs):
    term = built(alpha=0., beta=0., gamma=0., lambda_global=.7)
    for blocks in term.contexts:
        for block in blocks[0]:
            assert isinstance(block, GlobalContext)
            block.add[-1].weight.normal_()
            block.add[-1].bias.normal_()
    expected = torch.tensor([[
        .7 * sum(float((a - b).square().sum()) for a, b in zip(
            context(t[i], blocks[0][1], i).values(),
            context(s[i], blocks[0][0], i).values()))
        for (s, t), blocks in zip(pairs, term.contexts)] for i in range(3)])
    torch.testing.assert_close(of(term, pairs), expected)


def test_parts_and_levels_are_added_up(pairs):
    whole, first, second = (
        built((2, ), **dict(NUMBERS, **change)) for change in (
            dict(lambda_global=.7), dict(lambda_global=0.),
            dict(alpha=0., beta=0., gamma=0., lambda_global=.7)))
    pair = pairs[1:]
    torch.testing.assert_close(
        of(whole, pair), of(first, pair) + of(second, pair))
    twice = ((Pair(*pair[0], VALID), ) * 2, )
    torch.testing.assert_close(first.compare(twice, truth()),
                               2 * of(first, pair))


def test_equal_maps_are_at_rest():
    """Before training: R of student and teacher are the identity."""
    term = built((3, ))
    x = draw(3, 3, 4, 5).requires_grad_()
    loss = of(term, [(x, x.detach())])
    loss.sum().backward()
    assert loss.abs().max() == 0 and x.grad.abs().max() < 1e-7


@pytest.mark.parametrize('value', [1e4, torch.inf, torch.nan])
def test_padding_is_left_out(pairs, value):
    term = built(**NUMBERS)
    spoilt = []
    for pair in pairs:
        spoilt.append([x.clone() for x in pair])
        for x in spoilt[-1]:
            x.permute(0, 2, 3, 1)[VALID == 0] = value
    spoilt[0][0].requires_grad_()
    loss = of(term, spoilt)
    torch.testing.assert_close(loss, of(term, pairs))
    loss.sum().backward()
    assert spoilt[0][0].grad.isfinite().all()


def test_an_image_alone(pairs):
    """What it gives in a batch, also if others have more objects."""
    term = built(**NUMBERS)
    for i, objects in enumerate((2, 2, 0)):
        alone = of(term, [(s[i:i + 1], t[i:i + 1]) for s, t in pairs],
                   truth(OBJECTS[i:i + 1, :objects], VALID[i:i + 1]))
        torch.testing.assert_close(alone[0], of(term, pairs)[i])


def test_without_boxes(pairs):
    """The teacher's own attention in place of objects."""
    term = built(alpha=1., beta=5., gamma=0., lambda_global=0.)
    expected = []
    for i in range(3):
        row = []
        for s, t in pairs:
            space, channels = attentions(t[i], i)
            row.append(sum(
                space[h, w]**2 / len(points(i)) * channels[d] *
                float(t[i, d, h, w] - s[i, d, h, w])**2
                for h, w in points(i) for d in range(len(t[i]))))
        expected.append(row)
    torch.testing.assert_close(of(term, pairs, truth(None)),
                               torch.tensor(expected))


def test_every_object_counts_alike():
    """M sums to the number of objects that do not overlap."""
    objects = torch.tensor([[[0., 0, .5, .5, 0], [.5, .5, 1, 1, 3],
                             [.55, .1, .6, .15, 1]]])
    inside, outside = object_regions(objects, torch.ones(1, 8, 8))
    assert inside.sum() == 3 and inside.amax() == .5
    torch.testing.assert_close(outside.sum(), torch.tensor(1.))
    assert not (inside * outside).any()


def test_an_image_full_of_one_object():
    objects = torch.tensor([[[0., 0, 1, 1, 0]]])
    inside, outside = object_regions(objects, torch.ones(1, 4, 4))
    assert inside.eq(1 / 16).all() and not outside.any()


def test_the_student_and_the_contexts_learn():
    term = built()
    student = Output((draw(3, 3, 4, 5).requires_grad_(), ))
    teachers = [Output((draw(3, d, 4, 5, seed=d), )) for d in WIDTHS]
    optimizer = torch.optim.SGD(term.parameters(), lr=1.)
    for _ in range(2):  # the last layers are zero at first
        optimizer.zero_grad()
        term(student, teachers, truth()).sum().backward()
        optimizer.step()
    # A softmax does not depend on a constant.
    assert all(p.grad.any() for n, p in term.named_parameters()
               if not n.endswith('look.bias'))
    assert student.features[0].grad.any()


def test_bad_options():
    with pytest.raises(ConfigError, match='nothing to distil'):
        FGDLoss(alpha=0, beta=0, gamma=0, lambda_global=0)
    with pytest.raises(ConfigError, match=r'FGDLoss needs maps.*FitNetLoss'):
        FGDLoss().build(spec(shape=(3, )), [spec('t', shape=(3, 4, 5))])


def test_in_a_distiller():
    """A classifier has labels in place of boxes: refused by the builder."""
    with pytest.raises(ConfigError, match=r'FGDLoss reads the boxes.*PKDLoss'):
        build_distiller(losses=[dict(type='FGDLoss')])
