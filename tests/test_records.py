"""Records, and messages of the registry."""

import math
from dataclasses import replace

import pytest
import torch

from mmkd_rl.records import Output, OutputSpec, TeacherWeights, Truth
from mmkd_rl.registry import MODELS, WEIGHTINGS, build
from mmkd_rl.utils.pooling import masked_mean, mean_over_space
from tests.toy import context


def test_mean_over_space():
    """The vector of an image is the mean over its map, or its vector."""
    feature = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(mean_over_space(feature), feature.mean((2, 3)))
    assert mean_over_space(feature[..., 0, 0]).shape == (2, 3)


def test_mean_over_valid_points():
    """Compared with loops, for points that count in part and an image without
    valid points."""
    feature = torch.rand(3, 2, 2, 3, requires_grad=True)
    valid = torch.tensor([[[1., 0., .5], [0., .25, 1.]], [[1.] * 3] * 2,
                          [[0.] * 3] * 2])
    mean = mean_over_space(feature, valid)
    for i in range(3):
        for d in range(2):
            total = weight = 0.
            for h in range(2):
                for w in range(3):
                    total += float(valid[i, h, w] *
                                   feature.detach()[i, d, h, w])
                    weight += float(valid[i, h, w])
            assert float(mean[i, d].detach()) == pytest.approx(
                total / weight if weight else 0., rel=1e-5)
    torch.testing.assert_close(masked_mean(feature[:, 0], valid), mean[:, 0])
    torch.testing.assert_close(masked_mean(feature[:, 0], None),
                               feature[:, 0].mean((1, 2)))
    mean.sum().backward()
    assert not feature.grad[2].any() and not feature.grad[0, :, 0, 1].any()


def test_detached_records_share_numbers_and_lose_the_graph():
    logits = torch.rand(2, 3, requires_grad=True)
    record = TeacherWeights(logits * 2, logits * 3, 'what it saw')
    cut = record.detach()
    assert cut.record == 'what it saw'
    for name in ('logit', 'feature'):
        a, b = getattr(record, name), getattr(cut, name)
        assert torch.equal(a, b)
        assert a.requires_grad and not b.requires_grad
    record = Output((logits * 2, logits * 4), (logits * 3, ))
    cut = record.detach()
    assert [len(cut.features), len(cut.logits)] == [2, 1]
    for a, b in zip(record.tensors(), cut.tensors()):
        assert torch.equal(a, b)
        assert a.requires_grad and not b.requires_grad


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        OutputSpec('a', ((4, ), ), ((3, ), )).name = 'b'


def test_sizes():
    output = Output((torch.zeros(2, 4, 3, 5), torch.zeros(2, 6)),
                    (torch.zeros(2, 7, 3, 5), ))
    spec = OutputSpec.of('a', output)
    assert spec.features == ((4, 3, 5), (6, ))
    assert spec.channels == (4, 6)
    assert spec.logits == ((7, 3, 5), ) and spec.num_classes == 7
    assert OutputSpec('a', ((4, 2, 2), )).num_classes == 0
    assert OutputSpec('a', ((4, 2, 2), )).channels == (4, )


def masked():
    """Three images of 4x6: half of one, all, and none of it are valid."""
    valid = torch.zeros(3, 4, 6)
    valid[0, :, :3] = 1
    valid[1] = 1
    return Truth(None, valid, valid.sum((1, 2)))


@pytest.mark.parametrize('size', [(4, 6), (2, 3), (2, 2), (1, 1), (4, 4)])
def test_valid_points_of_a_coarser_map(size):
    """The share of each cell that is valid."""
    truth = masked()
    at = truth.valid_at(torch.rand(3, 2, *size))
    assert at.shape == (3, *size)
    for i in range(3):
        for h in range(size[0]):
            for w in range(size[1]):
                # rows and columns of a cell, including those partly in it
                rows = range(h * 4 // size[0], -(-(h + 1) * 4 // size[0]))
                columns = range(w * 6 // size[1], -(-(w + 1) * 6 // size[1]))
                points = [float(truth.valid[i, r, c])
                          for r in rows for c in columns]
                assert float(at[i, h, w]) == pytest.approx(
                    sum(points) / len(points))
    if size == (4, 6):
        assert at is truth.valid
    assert Truth(None, None, torch.ones(3)).valid_at(
        torch.rand(3, 2, *size)) is None
    assert truth.valid_at(torch.rand(3, 2)) is None  # a vector
    # Each level's mask is made once, for all teachers and terms.
    level = torch.rand(3, 5, 2, 3)
    assert truth.valid_at(level) is truth.valid_at(2 * level, teacher=1)
    # But with other masks it is another one.
    hidden = replace(truth, covered=(truth.valid * 0, truth.valid))
    assert not hidden.valid_at(level, 0).any()
    assert torch.equal(hidden.valid_at(level, 1), truth.valid_at(level))


def test_the_mean_over_images_leaves_out_those_without_valid_points():
    values = torch.tensor([1., 3., 100.], requires_grad=True)
    mean = masked().mean(values)
    assert float(mean.detach()) == 2.
    mean.backward()
    assert values.grad.tolist() == [.5, .5, 0.]
    # nothing is left out of a batch without a mask
    assert float(Truth(None, None, torch.ones(3)).mean(
        values.detach())) == pytest.approx(104 / 3)


def test_what_was_computed_of_nothing_does_no_harm():
    values = torch.tensor([1., 3., math.nan], requires_grad=True)
    mean = masked().mean(values)
    mean.backward()
    assert float(mean.detach()) == 2. and values.grad.isfinite().all()


def test_the_mean_over_no_images_is_zero():
    """The mean has a gradient, which DDP waits for."""
    values = torch.tensor([1., math.nan], requires_grad=True)
    mean = Truth(None, torch.zeros(2, 4, 4), torch.zeros(2)).mean(values)
    mean.backward()
    assert float(mean.detach()) == 0. and values.grad.tolist() == [0., 0.]


@pytest.mark.parametrize('registry, cfg, error, message', [
    (MODELS, 'KDLoss', TypeError, 'key must be a dict with a "type"'),
    (MODELS, dict(temperature=1), TypeError, 'a dict with a "type"'),
    (MODELS, dict(type='KdLoss'), ValueError,
     "key.type: 'KdLoss' is not a registered model.*'KDLoss'"),
    (MODELS, dict(type='KDLoss', t=1), TypeError, "key: .*'t'"),
])
def test_build_complains_in_the_users_words(registry, cfg, error, message):
    with pytest.raises(error, match=message):
        build(registry, cfg, 'key')


def test_build_takes_classes_and_names_in_any_scope():
    """Classes and names work with any default scope of the config."""
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmdet'):
        made = build(WEIGHTINGS, dict(type='AverageWeighting'), 'key',
                     context=context(2))
    again = build(WEIGHTINGS, dict(type=type(made)), 'key',
                  context=context(2))
    assert type(again) is type(made)


def test_build_leaves_the_config_alone():
    cfg = dict(type='KDLoss', temperature=2.)
    build(MODELS, cfg, 'key')
    assert cfg == dict(type='KDLoss', temperature=2.)
