"""Q compared with loops over its definition."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmkd_rl.flow.transform import Layout, Transform, grid_of, resize

IMAGE = (16, 24)
# name: (shape without B, class tokens)
STUDENTS = {
    'vector': ((3, ), None),
    'map': ((3, 4, 6), None),
    'tokens': ((24, 3), 0),  # 4 x 6
    'class token': ((25, 3), 1),
}
TEACHERS = {
    'vector': ((5, ), None),
    'same map': ((5, 4, 6), None),
    'fine map': ((5, 8, 12), None),
    'coarse map': ((5, 2, 3), None),
    'same tokens': ((24, 5), 0),
    'coarse tokens': ((6, 5), 0),
    'class token': ((25, 5), 1),
    'fine class token': ((97, 5), 1),
    'two class tokens': ((26, 5), 2),
}


def layout(shape, extra):
    return Layout.of(torch.zeros(2, *shape), 'a layer', extra, IMAGE)


def numpy(x):
    return x.detach().double().numpy()


def average(maps, size):
    """Resize [E, H, W] to [E, *size]: average pooling by whole factors, or
    bilinear upsampling."""
    channels, height, width = maps.shape
    out = np.zeros((channels, *size))
    for y, x in itertools.product(*map(range, size)):
        if height >= size[0]:
            h, w = height // size[0], width // size[1]
            out[:, y, x] = maps[:, y * h:(y + 1) * h, x * w:(x + 1) * w].mean(
                (1, 2))
            continue
        # Pixels are squares; outside the outer centres values are those of the
        # edge.
        v = min(max((y + .5) * height / size[0] - .5, 0), height - 1)
        u = min(max((x + .5) * width / size[1] - .5, 0), width - 1)
        for a, b in itertools.product((0, 1), (0, 1)):
            i, j = min(int(v) + a, height - 1), min(int(u) + b, width - 1)
            part = (v - int(v) if a else 1 - v + int(v)) * (
                u - int(u) if b else 1 - u + int(u))
            out[:, y, x] += part * maps[:, i, j]
    return out


def reference(q, feature, shape, extra, teacher_extra):
    """Q for share = 1 and one image: at each position of the student, the
    matrix times the teacher's feature at that position."""
    matrix, z = numpy(q.weight), numpy(feature)
    grid = (4, 6)
    if z.ndim == 1:
        one, maps = z, np.broadcast_to(z[:, None, None], (5, *grid))
    elif z.ndim == 3:
        one, maps = z.mean((1, 2)), average(z, grid)
    else:
        one = z[0] if teacher_extra else z.mean(0)
        places = z[teacher_extra:]
        h = round(math.sqrt(len(places) * 2 / 3))  # sides are 2 to 3
        w = len(places) // h
        maps = np.stack([[places[y * w + x] for x in range(w)]
                         for y in range(h)])
        maps = average(maps.transpose(2, 0, 1), grid)
    if len(shape) == 1:
        return matrix @ one
    out = np.zeros((3, *grid))
    for y, x in itertools.product(*map(range, grid)):
        out[:, y, x] = matrix @ maps[:, y, x]
    if len(shape) == 3:
        return out
    rows = [out[:, y, x] for y in range(grid[0]) for x in range(grid[1])]
    if extra:
        own = z[0] if z.ndim == 2 and teacher_extra == 1 else one
        rows.insert(0, numpy(q.extra_weight) @ own)
    return np.stack(rows)


@pytest.mark.parametrize('student', STUDENTS)
@pytest.mark.parametrize('teacher', TEACHERS)
def test_q_is_the_matrix_times_what_is_at_each_place(student, teacher):
    shape, extra = STUDENTS[student]
    other, teacher_extra = TEACHERS[teacher]
    q = Transform(layout(shape, extra), layout(other, teacher_extra))
    feature, like = torch.randn(2, *other), torch.zeros(2, *shape)
    got = (like + q(feature, like, 1., IMAGE))
    assert got.shape == like.shape
    for b in range(2):
        want = reference(q, feature[b], shape, extra, teacher_extra)
        np.testing.assert_allclose(numpy(got[b]), want, atol=1e-5)


@pytest.mark.parametrize('student', STUDENTS)
@pytest.mark.parametrize('teacher', TEACHERS)
def test_q_works_on_one_image_and_is_linear_in_its_share(student, teacher):
    shape, extra = STUDENTS[student]
    other, teacher_extra = TEACHERS[teacher]
    q = Transform(layout(shape, extra), layout(other, teacher_extra))
    feature, like = torch.randn(3, *other), torch.zeros(3, *shape)
    whole = q(feature, like, 1., IMAGE)
    share = torch.tensor(.3, requires_grad=True)
    third = q(feature, like, share, IMAGE)
    torch.testing.assert_close(third, .3 * whole)
    assert not q(feature, like, torch.tensor(0.), IMAGE).any()
    alone = q(feature[1:2], like[1:2], 1., IMAGE)
    torch.testing.assert_close(alone, whole[1:2])
    # d(share * <Qz, 1>) / d share = <Qz, 1>
    third.sum().backward()
    torch.testing.assert_close(share.grad, whole.sum())


@pytest.mark.parametrize('size', [(7, 9), (3, 4), (14, 3), (20, 30), (7, 1)])
def test_resize_before_or_behind_the_matrix_is_the_same(size):
    """Both are linear, one over channels and one over space. The faster order
    is used, and the result must not depend on it."""
    maps, matrix = torch.randn(2, 5, 7, 9).double(), torch.randn(3, 5).double()
    q = Transform(Layout('map', 3), Layout('map', 5)).double()
    q.weight.data = matrix
    kernel = matrix[..., None, None]
    got = q(maps, torch.zeros(2, 3, *size), 1.)
    torch.testing.assert_close(got, resize(F.conv2d(maps, kernel), size))
    torch.testing.assert_close(got, F.conv2d(resize(maps, size), kernel))


def test_resize_keeps_constants_and_means():
    assert resize(torch.full((1, 2, 5, 7), 3.), (2, 3)).eq(3).all()
    torch.testing.assert_close(
        resize(torch.full((1, 2, 2, 3), 3.), (5, 7)),
        torch.full((1, 2, 5, 7), 3.))
    maps = torch.randn(1, 2, 6, 8)
    torch.testing.assert_close(resize(maps, (3, 2)).mean(), maps.mean())
    assert resize(maps, (6, 8)) is maps


@pytest.mark.parametrize('image', [None, (32, 32), (32, 64), (96, 32)])
@pytest.mark.parametrize('count', [1, 7, 16, 24, 196, 1050])
def test_the_grid_is_the_one_of_all_that_fits_the_image_best(count, image):
    ratio = image[0] / image[1] if image else 1.
    best = min(abs(math.log(h * h / count / ratio))
               for h in range(1, count + 1) if count % h == 0)
    h, w = grid_of(count, image)
    assert h * w == count
    assert abs(math.log(h / w / ratio)) == pytest.approx(best)


def test_class_tokens_are_told_from_places_by_the_images_sides():
    def extra(length, image):
        return Layout.of(torch.zeros(2, length, 3), 'x', None, image).extra

    assert extra(196, (224, 224)) == 0
    assert extra(197, (224, 224)) == 1
    assert extra(198, (224, 224)) == 2
    assert extra(4 * 8 + 1, (32, 64)) == 1
    assert extra(4 * 8, (32, 64)) == 0
    assert extra(1, (32, 32)) == 0
    # A size that the network states has priority.
    assert Layout.of(torch.zeros(2, 197, 3), 'x', 0, (224, 224)).extra == 0


def test_tokens_of_a_teacher_that_resizes_lie_on_its_own_grid():
    """The teacher resizes images to squares and has 4 x 4 tokens. From the
    student's images, with sides 1 to 4, 2 x 8 would be inferred."""
    teacher = Layout.of(torch.zeros(2, 16, 1), 'x', None, (8, 32), (32, 32))
    q = Transform(Layout('map', 1), teacher)
    q.weight.data.fill_(1.)
    rows = torch.arange(4.).repeat_interleave(4).view(1, 16, 1)
    got = q(rows, torch.zeros(1, 1, 4, 16), 1., (8, 32))
    assert torch.equal(got, torch.arange(4.)[:, None].expand(4, 16)[None,
                                                                    None])
    # The same for a student with 16 tokens on another grid, 2 x 8.
    tokens = Transform(Layout('tokens', 1), teacher)
    tokens.weight.data.fill_(1.)
    got = tokens(rows, torch.zeros(1, 16, 1), 1., (8, 32))
    want = torch.tensor([.5, 2.5]).repeat_interleave(8).view(1, 16, 1)
    torch.testing.assert_close(got, want)


def test_what_arrives_has_the_scale_of_what_was_sent():
    q = Transform(Layout('vector', 400), Layout('vector', 900))
    out = q(3 * torch.randn(200, 900), torch.zeros(200, 400), 1.)
    assert out.std().item() == pytest.approx(3, rel=.02)


def test_q_is_no_convolution_that_an_init_cfg_would_touch():
    q = Transform(Layout('map', 2), Layout('map', 3))
    assert not any(isinstance(m, (nn.Conv2d, nn.Linear)) for m in q.modules())
    assert [tuple(p.shape) for p in q.parameters()] == [(2, 3)]


@pytest.mark.parametrize('bad', [
    torch.zeros(2), torch.zeros(2, 3, 4, 5, 6),
    torch.zeros(2, 3, dtype=torch.long), (torch.zeros(2, 3), )])
def test_what_no_q_can_join_is_refused(bad):
    with pytest.raises(ValueError, match='layer x.*cannot be mixed'):
        Layout.of(bad, 'layer x')


def test_a_first_axis_that_does_not_count_images_is_refused():
    """The first axis can be attention windows or tokens."""
    with pytest.raises(ValueError, match=r'gives \(8, 4, 3\).*2 images, wh'):
        Layout.of(torch.zeros(8, 4, 3), 'x', batch=2)
    assert Layout.of(torch.zeros(2, 4, 3), 'x', batch=2).kind == 'tokens'
