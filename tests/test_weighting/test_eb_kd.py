"""EB-KD compared with loops over its formula; extreme entropies."""

import math

import pytest
import torch

from mmkd_rl.records import Gaps
from mmkd_rl.registry import WEIGHTINGS, build
from mmkd_rl.tasks import ClassificationTask
from tests.test_weighting.steps import check_training
from tests.toy import context, output, random_batch


def strategy(count=3, ctx=None, **cfg):
    return build(
        WEIGHTINGS,
        dict(type='EBKD', **cfg),
        'model.weighting',
        context=ctx or context(count))


def reference(batch):
    """1 - H_m / sum_j H_j, in loops."""
    rows = []
    for b in range(len(batch.truth.targets)):
        entropies = []
        for t in batch.teachers:
            z = [float(v) for v in t.logits[0][b].double()]
            total = sum(math.exp(v) for v in z)
            p = [math.exp(v) / total for v in z]
            entropies.append(-sum(x * math.log(x) for x in p))
        rows.append([1 - h / sum(entropies) for h in entropies])
    return torch.tensor(rows)


@pytest.mark.parametrize('count', [2, 3, 4])
def test_reference(count):
    batch = random_batch(count=count)
    expected = reference(batch)
    paper = strategy(count, scale='paper')(batch)
    unit = strategy(count)(batch)
    torch.testing.assert_close(paper.logit, expected)
    torch.testing.assert_close(unit.logit, expected / (count - 1))
    torch.testing.assert_close(unit.logit.sum(1), torch.ones(6))
    torch.testing.assert_close(paper.logit.sum(1),
                               torch.full((6, ), count - 1.))
    assert torch.equal(unit.feature, unit.logit)
    assert not unit.logit.requires_grad


def test_the_surest_weighs_most_whatever_is_true():
    batch = random_batch()
    sure, unsure = torch.zeros(6, 5), torch.zeros(6, 5)
    sure[:, 0] = 20.
    batch = random_batch(
        teachers=tuple(
            output(z, batch.student.features[0])
            for z in (sure, unsure, unsure)))
    weights = strategy()(batch).logit
    torch.testing.assert_close(
        weights, torch.tensor([.5, .25, .25]).expand(6, 3), atol=1e-5, rtol=0)


def with_logits(*logits):
    feature = torch.zeros(len(logits[0]), 8)
    return random_batch(
        size=len(logits[0]),
        count=len(logits),
        teachers=tuple(output(z, feature) for z in logits))


def test_identical_teachers_weigh_the_same():
    z = torch.randn(4, 5)
    weights = strategy(3)(with_logits(z, z, z)).logit
    torch.testing.assert_close(weights, torch.full((4, 3), 1 / 3))


@pytest.mark.parametrize('dtype', [torch.float32, torch.half, torch.bfloat16])
@pytest.mark.parametrize('scale', ['unit', 'paper'])
def test_no_entropy_at_all(dtype, scale):
    """Zero entropies: p ln p at p = 0, and weights of 0 / 0."""
    z = torch.zeros(2, 5, dtype=dtype)
    z[:, 1] = 1e4
    weights = strategy(3, scale=scale)(with_logits(z, z, z)).logit
    total = 1. if scale == 'unit' else 2.
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.full((2, 3), total / 3))
    # if only one of two has an entropy > 0, the other has all the weight
    weights = strategy(2, scale=scale)(with_logits(z, z * 0)).logit
    torch.testing.assert_close(weights, torch.tensor([[1., 0.]] * 2))


@pytest.mark.parametrize('scale', ['unit', 'paper'])
@pytest.mark.parametrize('size', [1, 6])
def test_one_teacher(scale, size):
    weights = strategy(1, scale=scale)(random_batch(size=size, count=1))
    assert torch.equal(weights.logit, torch.ones(size, 1))


@pytest.mark.parametrize('off', ['logit', 'feature'])
def test_one_kind_of_distillation_alone_and_soft_targets(off):
    gaps = random_batch().gaps
    gaps = Gaps(None, gaps.feature, None) if off == 'logit' else Gaps(
        gaps.logit, None, None)
    batch = random_batch(gaps=gaps, targets=torch.rand(6, 5).softmax(1))
    weights = strategy(ctx=context(**{f'{off}_weight': None}))(batch)
    torch.testing.assert_close(weights.feature, reference(batch) / 2)


def test_what_an_entropy_is_the_task_says():
    """The task computes the entropy, e.g. a dense task with a mean over
    space."""

    class Dense(ClassificationTask):

        def entropy(self, output, truth):
            return torch.special.entr(
                output.logits[0].softmax(1)).sum(1).flatten(1).mean(1)

    made = strategy(2, ctx=context(2, task=Dense()))
    z = torch.randn(2, 5, 3, 4)
    maps = made(with_logits(z, 3 * z)).logit
    assert maps.shape == (2, 2)
    flat = z[..., :1, :1].expand_as(z)
    torch.testing.assert_close(
        made(with_logits(flat, 3 * flat)).logit,
        strategy(2)(with_logits(z[..., 0, 0], 3 * z[..., 0, 0])).logit)


def test_training(tmp_path):
    check_training(tmp_path, dict(type='EBKD'))


def test_bad_configs():
    with pytest.raises(ValueError, match="weighting.scale.*'papers'"):
        strategy(scale='papers')
    with pytest.raises(TypeError, match="model.weighting.*'temperature'"):
        strategy(temperature=4)
