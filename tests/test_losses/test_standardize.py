"""Teachers' features in one scale: statistics, invariance, several passes."""

import pytest
import torch

from mmkd_rl.losses import CWDLoss, FitNetLoss, MGDLoss
from mmkd_rl.records import Output, OutputSpec, Pair, Truth

SHAPE = (3, 4, 6)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(term, teachers=1):
    torch.manual_seed(0)
    term.build(OutputSpec('student', (SHAPE, )),
               [OutputSpec(f't{m}', (SHAPE, )) for m in range(teachers)],
               dict(norm=False))
    return term.train()


def truth(valid=None, count=4):
    return Truth(None, valid, torch.ones(count) if valid is None else
                 valid.sum((1, 2)))


def step(term, maps, valid=None):
    student = Output((draw(*maps[0].shape), ))
    return term.align(student, [Output((x, )) for x in maps],
                      truth(valid, len(maps[0])))


def test_statistics_are_those_of_all_valid_pixels_so_far():
    valid = torch.ones(4, 4, 6)
    valid[1, :, 3:] = 0
    valid[2] = 0
    valid[3, 0, 0] = .5
    batches = [100 + 7 * draw(4, *SHAPE, seed=s) for s in range(3)]
    term = built(FitNetLoss(standardize=True))
    for x in batches:
        hidden = torch.where(valid[:, None] > 0, x, torch.inf)
        (pair, ), = step(term, [hidden], valid)
    values = torch.cat([x.movedim(1, -1).flatten(0, 2) for x in batches])
    w = valid.flatten().repeat(3)[:, None].double()
    mean = (w * values).sum(0) / w.sum()
    var = (w * (values - mean).square()).sum(0) / w.sum()
    torch.testing.assert_close(term.scales.moments[0][0].mean, mean.float())
    torch.testing.assert_close(term.scales.moments[0][0].var, var.float(),
                               rtol=1e-4, atol=0)
    kept = valid[:, None].expand_as(pair.teacher) > 0
    expected = (batches[-1] - mean.float().view(-1, 1, 1)) / \
        var.float().sqrt().view(-1, 1, 1)
    torch.testing.assert_close(pair.teacher[kept], expected[kept],
                               rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('kind', [FitNetLoss, CWDLoss, MGDLoss])
def test_the_scale_of_a_teacher_does_not_matter(kind):
    """Teachers that differ by the scale of each channel alone have equal
    gaps; without the option the larger one has a far larger gap."""
    x = draw(4, *SHAPE, seed=1)
    large = 50 * x * torch.tensor([1., 2., 3.]).view(-1, 1, 1) + 9
    for standardize in (True, False):
        term = built(kind(standardize=standardize), 2).eval()
        term.projectors[1].load_state_dict(term.projectors[0].state_dict())
        if kind is MGDLoss:
            term.generators[1].load_state_dict(
                term.generators[0].state_dict())
        if standardize:
            term.scales.train()
        gaps = term.compare(step(term, [x, large]), truth())
        assert torch.allclose(gaps[:, 0], gaps[:, 1], rtol=1e-3) is standardize


def test_only_a_training_step_changes_the_statistics():
    term = built(FitNetLoss(standardize=True))
    step(term, [draw(4, *SHAPE)])
    before = {k: v.clone() for k, v in term.state_dict().items()}
    with torch.no_grad():  # the reward after the student's update
        step(term, [9 * draw(4, *SHAPE, seed=2)])
    term.eval()
    step(term, [9 * draw(4, *SHAPE, seed=2)])
    for name, value in term.state_dict().items():
        assert torch.equal(value, before[name])
    term.train()
    step(term, [9 * draw(4, *SHAPE, seed=2)])
    assert term.scales.moments[0][0].count == 2 * 4 * 24
    fresh = built(FitNetLoss(standardize=True))
    fresh.load_state_dict(term.state_dict())
    assert torch.equal(fresh.scales.moments[0][0].var,
                       term.scales.moments[0][0].var)


def test_a_constant_channel_becomes_zero():
    x = draw(4, *SHAPE)
    x[:, 1] = 1e3
    term = built(FitNetLoss(standardize=True))
    (pair, ), = step(term, [x])
    assert pair.teacher[:, 1].abs().max() == 0
    assert pair.teacher.isfinite().all()


def test_the_students_side_in_the_teachers_scale():
    """CA-MKD runs a teacher's classifier on it."""
    x = 5 + 3 * draw(4, *SHAPE)
    term = built(FitNetLoss(standardize=True))
    (pair, ), = step(term, [x])
    same = Pair(pair.teacher, pair.teacher, scale=pair.scale)
    torch.testing.assert_close(same.student_as_teacher(), x)
    assert Pair(x, x).student_as_teacher() is x
