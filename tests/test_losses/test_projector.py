"""The projector resizes the finer map to the coarser one, whether it is the
student's or the teacher's."""

import pytest
import torch
import torch.nn.functional as F

from mmkd_rl.losses import Projector


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
    projector = Projector(student, teacher)
    projected, target = projector(
        torch.rand(2, *student), torch.rand(2, *teacher))
    assert projected.shape == target.shape == (2, *shape)


def test_the_finer_map_is_averaged():
    projector = Projector((3, 4, 4), (5, 2, 2)).eval()
    x, y = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)
    projected, target = projector(x, y)
    assert target is y
    torch.testing.assert_close(projected, projector.layers(F.avg_pool2d(x, 2)))
    coarse = torch.rand(2, 3, 1, 1)
    torch.testing.assert_close(
        projector(coarse, y)[1], y.mean((2, 3), keepdim=True))


def test_vectors_meet_the_mean_of_maps():
    projector = Projector((3, ), (5, 2, 2))
    y = torch.rand(2, 5, 2, 2)
    torch.testing.assert_close(
        projector(torch.rand(2, 3), y)[1], y.mean((2, 3)))


@pytest.mark.parametrize('shapes', [((3, 2, 2), (5, 2, 2)), ((3, ), (5, ))])
def test_act(shapes):
    torch.manual_seed(0)
    for act in (False, True):
        projector = Projector(*shapes, act=act)
        projected, _ = projector(
            torch.randn(8, *shapes[0]), torch.randn(8, *shapes[1]))
        assert (projected.min() >= 0) == act


@pytest.mark.parametrize('shapes, norms', [
    (((3, 2, 2), (5, 2, 2)), 1), (((3, ), (5, )), 0)])
def test_norm(shapes, norms):
    """Only projectors of maps have a norm; without it the convolution has a
    bias."""
    for norm in (True, False):
        layers = Projector(*shapes, norm=norm).layers
        found = [m for m in layers if isinstance(m, torch.nn.BatchNorm2d)]
        assert len(found) == norms * norm
        assert (layers[0].bias is None) == bool(found)


def test_a_map_of_one_value_a_channel_has_no_variance():
    """In this case the running statistics are used, and not changed."""
    projector = Projector((3, 1, 1), (5, 1, 1)).train()
    norm = projector.layers[1]
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    x, y = torch.rand(1, 3, 1, 1), torch.rand(1, 5, 1, 1)
    projected, _ = projector(x, y)
    torch.testing.assert_close(
        projected, projector.layers[0](x), rtol=1e-4, atol=1e-5)
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])
    assert projector.layers.training
