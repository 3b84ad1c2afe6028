"""The projector brings the finer map to the coarser, either way."""

import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.taps import Projector
from tests.toy import spec


@pytest.mark.parametrize('student, teacher, shape', [
    ((4, 8, 8), (6, 2, 2), (6, 2, 2)),  # student finer
    ((4, 2, 2), (6, 8, 8), (6, 2, 2)),  # teacher finer
    ((4, 8, 2), (6, 4, 4), (6, 4, 2)),  # each finer in one direction
    ((4, 3, 3), (4, 3, 3), (4, 3, 3)),
    ((4, ), (6, ), (6, )),
    ((4, 5, 5), (6, ), (6, )),
    ((4, ), (6, 5, 5), (6, )),
])
def test_shapes(student, teacher, shape):
    projector = Projector(spec(shape=student), spec(shape=teacher))
    projected, target = projector(
        torch.rand(2, *student), torch.rand(2, *teacher))
    assert projected.shape == target.shape == (2, *shape)


def test_the_finer_map_is_averaged():
    projector = Projector(
        spec(shape=(3, 4, 4)), spec(shape=(5, 2, 2))).eval()
    x, y = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)
    projected, target = projector(x, y)
    assert target is y
    torch.testing.assert_close(projected, projector.layers(F.avg_pool2d(x, 2)))
    coarse = torch.rand(2, 3, 1, 1)
    torch.testing.assert_close(
        projector(coarse, y)[1], y.mean((2, 3), keepdim=True))


def test_vectors_meet_the_mean_of_maps():
    projector = Projector(spec(shape=(3, )), spec(shape=(5, 2, 2)))
    y = torch.rand(2, 5, 2, 2)
    torch.testing.assert_close(
        projector(torch.rand(2, 3), y)[1], y.mean((2, 3)))


@pytest.mark.parametrize('shapes', [((3, 2, 2), (5, 2, 2)), ((3, ), (5, ))])
def test_act(shapes):
    torch.manual_seed(0)
    for act in (False, True):
        projector = Projector(
            spec(shape=shapes[0]), spec(shape=shapes[1]), act=act)
        projected, _ = projector(
            torch.randn(8, *shapes[0]), torch.randn(8, *shapes[1]))
        assert (projected.min() >= 0) == act
