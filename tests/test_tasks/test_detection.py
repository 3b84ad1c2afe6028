"""DetectionTask: where objects lie, levels of one stride, scores of one
meaning, and quality compared with loops."""

import math

import pytest
import torch
from mmengine.structures import InstanceData

from mmkd_rl.options import ConfigError
from mmkd_rl.records import Batch, Output, OutputSpec, Truth
from mmkd_rl.registry import MODELS, TASKS
from mmkd_rl.tasks import DetectionTask
from mmkd_rl.tasks.dense_scores import DenseScores, scores_of
from mmkd_rl.tasks.shared_norm import shares_batch_norm
from mmkd_rl.utils.objects import covered_cells, objects_of

pytest.importorskip('mmdet')

#: Two classes, two anchors at each location; levels of 4x4 and 2x2 locations.
LAYOUT = DenseScores(2, ((8, 8), (16, 16)), 2)
SIZES = [(4, 4), (2, 2)]
#: Objects of three images: two; one outside; none.
OBJECTS = torch.tensor([
    [[0., 0., .3, .6, 1], [.5, .5, 1., 1., 0]],
    [[1.3, 0., 1.5, .1, 1], [-1., -1, -1, -1, -1]],
    [[-1., -1, -1, -1, -1], [-1., -1, -1, -1, -1]]])
VALID = torch.ones(3, 32, 32)
VALID[2, :, 16:] = 0
TRUTH = Truth(OBJECTS, VALID, VALID.sum((1, 2)))


def task():
    made = DetectionTask(scores=True)
    made._dense = LAYOUT
    return made


def output(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Output(logits=tuple(
        2 * torch.randn(3, 4, *size, generator=generator) for size in SIZES))


def cells(box, size):
    """Cells that a box overlaps, by loops."""
    x1, y1, x2, y2 = box
    return {(h, w) for h in range(size[0]) for w in range(size[1])
            if y1 * size[0] < h + 1 and y2 * size[0] > h
            and x1 * size[1] < w + 1 and x2 * size[1] > w}


def locations(found, i):
    """Probabilities of both classes, and the place, of each valid location of
    an image."""
    for level, size in enumerate(SIZES):
        for h in range(size[0]):
            for w in range(size[1]):
                if i == 2 and w >= size[1] // 2:
                    continue
                z = found.logits[level][i, :, h, w].tolist()
                # Channels: both classes of the first anchor, of the second.
                yield level, h, w, [
                    1 / (1 + math.exp(-max(z[c], z[2 + c]))) for c in (0, 1)]


def boxes(i):
    return [(row[:4], int(row[4])) for row in OBJECTS[i].tolist()
            if row[4] >= 0]


def quality(found, i):
    places = list(locations(found, i))
    total, count, inside = 0., 0, set()
    for box, label in boxes(i):
        own = {(level, *cell) for level, size in enumerate(SIZES)
               for cell in cells(box, size)}
        if own:
            count += 1
            total += math.log(max(p[label] for *place, p in places
                                  if tuple(place) in own))
            inside |= own
    for *place, p in places:
        if tuple(place) not in inside:
            total += sum(q * q * math.log(1 - q) for q in p)
    return total / max(count, 1)


def test_quality():
    found = output()
    torch.testing.assert_close(
        task().quality(found, TRUTH),
        torch.tensor([quality(found, i) for i in range(3)]))


def test_quality_prefers_the_right_objects():
    """Scores at the objects, against nothing, the wrong class, and noise."""
    def scored(classes, elsewhere=-8.):
        logits = tuple(torch.full((3, 4, *size), elsewhere) for size in SIZES)
        for (box, _), c in zip(boxes(0), classes):
            for h, w in cells(box, SIZES[0]):
                logits[0][0, c, h, w] = 4.
        return task().quality(Output(logits=logits), TRUTH)[0]

    right = scored([1, 0])
    assert right > scored([0, 1]) and right > scored([1, 0], 0.)
    assert right > scored([])


def test_margin():
    found = output(3)
    expected = []
    for i in range(3):
        total, count = 0., 0
        for box, label in boxes(i):
            own = [p for level, h, w, p in locations(found, i)
                   if (h, w) in cells(box, SIZES[level])]
            if own:
                best = max(own, key=lambda p: p[label])
                total, count = total + best[label] - best[1 - label], count + 1
        expected.append(total / max(count, 1))
    torch.testing.assert_close(task().margin(found, TRUTH),
                               torch.tensor(expected))


def test_entropy():
    found = output(1)
    expected = []
    for i in range(3):
        values = [-sum(q * math.log(q) + (1 - q) * math.log(1 - q) for q in p)
                  for *_, p in locations(found, i)]
        expected.append(sum(values) / len(values))
    torch.testing.assert_close(task().entropy(found, TRUTH),
                               torch.tensor(expected))


def test_logit_gradient_by_differences():
    found = output()
    slopes = task().logit_gradient(found, TRUTH)
    for level, place in ((0, (0, 1, 1, 0)), (1, (2, 3, 1, 0)),
                         (0, (0, 2, 3, 3))):
        shifted = [
            Output(logits=tuple(z.double() for z in found.logits))
            for _ in range(2)]
        for sign, moved in zip((1, -1), shifted):
            moved.logits[level][place] += sign * 1e-4
        high, low = (-sum(quality(moved, i) for i in range(3))
                     for moved in shifted)
        assert float(slopes[level][place]) == pytest.approx(
            (high - low) / 2e-4, rel=1e-3, abs=1e-5)


def test_summary_is_the_largest_probability():
    found = output()
    expected = [[max(p[c] for *_, p in locations(found, i)) for c in (0, 1)]
                for i in range(3)]
    torch.testing.assert_close(task().logit_summary(found, TRUTH),
                               torch.tensor(expected))
    spec = OutputSpec('t', features=((5, 4, 4), (3, 2, 2)))
    assert task().summary_sizes(spec) == dict(feature=8, logit=2)


def test_coverage_of_classes():
    """By objects; channels of both anchors."""
    known = torch.tensor([[True, False, True, False], [True] * 4])
    torch.testing.assert_close(
        task().class_coverage(TRUTH, known),
        torch.tensor([[.5, 1.], [0., 1.], [1., 1.]]))


# ----------------------------------------------------------------- objects


def sample(boxes=(), labels=(), shape=(32, 32)):
    from mmdet.structures import DetDataSample
    made = DetDataSample(metainfo=dict(
        img_shape=shape, batch_input_shape=(32, 64)))
    made.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long))
    return made


def test_objects_in_shares_of_the_padded_image():
    batch = Batch(torch.zeros(2, 3, 32, 64), [
        sample([[8., 16., 64., 24.]], [5]), sample()])
    truth = DetectionTask().truth(batch)
    torch.testing.assert_close(truth.targets, torch.tensor(
        [[[.125, .5, 1., .75, 5]], [[-1.] * 5]]))
    # The right half is padding.
    assert truth.valid[:, :, :32].all() and not truth.valid[:, :, 32:].any()


def test_boxes_of_mmdetection():
    from mmdet.structures.bbox import HorizontalBoxes
    made = sample([[8., 16., 64., 24.]], [5])
    given = objects_of([made], torch.zeros(1, 3, 32, 64))
    made.gt_instances.bboxes = HorizontalBoxes([[8., 16., 64., 24.]])
    assert torch.equal(objects_of([made], torch.zeros(1, 3, 32, 64)), given)


def test_samples_without_boxes():
    from mmdet.structures import DetDataSample
    batch = Batch(torch.zeros(1, 3, 32, 64), [DetDataSample()])
    assert DetectionTask().truth(batch).targets is None
    with pytest.raises(ValueError, match=r'no gt_instances.*PackDetInputs'):
        DetectionTask(scores=True).truth(batch)


@pytest.mark.parametrize('box, count', [
    ([.25, .25, .5, .75], 2), ([.3, .3, .3, .3], 1), ([0., 0, 1, 1], 16),
    ([.6, .9, .61, 1.4], 1), ([1.1, 0, 1.2, .5], 0), ([-.5, 0, -.1, 1], 0),
    ([-.5, .5, .1, .6], 1)])
def test_covered_cells(box, count):
    found = covered_cells(torch.tensor([[*box, 0.], [*box, -1.]]), (4, 4))
    assert found.sum((1, 2)).tolist() == [count, 0]


# ------------------------------------------------------------------ levels


def levels(*sides):
    return OutputSpec('t', features=tuple((8, n, n) for n in sides))


@pytest.mark.parametrize('student, teacher, pairs', [
    ((32, 16, 8), (32, 16, 8), None),
    ((32, 16, 8, 4, 2), (64, 32, 16, 8, 4), ((0, 1), (1, 2), (2, 3), (3, 4))),
    ((32, 16, 8), (8, ), ((2, 0), )),
    ((33, 17, 9), (32, 16, 8), ((0, 0), (1, 1), (2, 2))),
    ((38, 19, 10, 5, 3, 1), (40, 20, 10), ((0, 0), (1, 1), (2, 2))),
    # A dilated backbone: the last of its maps.
    ((32, 16, 8), (64, 32, 32, 32), ((0, 3), )),
    ((64, 32, 32, 32), (32, 16, 8), ((3, 0), )),
    # Two stacked networks, as in CornerNet.
    ((64, 64), (64, 64), None),
    ((64, 64), (64, 32), ((1, 0), )),
    # Twice the stride: the nearest two.
    ((64, 64), (32, 16), ((1, 0), )),
    ((16, 8), (33, ), ((0, 0), ))])
def test_levels_of_one_stride(student, teacher, pairs):
    assert DetectionTask().pair_levels(
        levels(*student), levels(*teacher)) == pairs


def test_vectors_have_no_strides():
    assert DetectionTask().pair_levels(
        levels(16, 8), OutputSpec('t', features=((8, ), (8, 4, 4)))) is None


def test_no_level_in_common():
    with pytest.raises(ConfigError, match=r'64x64, and the student.s 16x16'):
        DetectionTask().pair_levels(levels(16, 8), levels(64))


# ------------------------------------------------------------------ scores


def head(kind, **kwargs):
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(dict(
            type=f'mmdet.{kind}', num_classes=3, in_channels=8, **kwargs))


ANCHORS = dict(type='mmdet.AnchorGenerator', ratios=[.5, 1., 2.],
               octave_base_scale=4, scales_per_octave=1, strides=[8, 16])
ONE = dict(type='mmdet.AnchorGenerator', ratios=[1.], octave_base_scale=8,
           scales_per_octave=1, strides=[8, 16])
SIGMOID = dict(type='mmdet.FocalLoss', use_sigmoid=True)
QUALITY = dict(type='mmdet.QualityFocalLoss', use_sigmoid=True)


def test_heads_with_one_anchor_or_point_have_one_meaning():
    found = [
        scores_of(head('FCOSHead', strides=[8, 16],
                       regress_ranges=((-1, 64), (64, 1e8)))),
        scores_of(head('ATSSHead', anchor_generator=ONE, loss_cls=SIGMOID)),
        scores_of(head('GFLHead', anchor_generator=ONE, loss_cls=QUALITY))]
    assert found == [DenseScores(3, ((8, 8), (16, 16)), 1)] * 3


def test_anchors_of_other_sizes_have_another():
    one, other = (
        scores_of(head('RetinaHead', loss_cls=SIGMOID,
                       anchor_generator=dict(ANCHORS, octave_base_scale=s)))
        for s in (4, 3))
    assert one.anchors == other.anchors == 3 and one != other


@pytest.mark.parametrize('made, reason', [
    (lambda: head('TOODHead', anchor_generator=ONE, loss_cls=SIGMOID,
                  initial_loss_cls=SIGMOID), 'probabilities'),
    (lambda: MODELS.build(dict(
        type='mmdet.RPNHead', in_channels=8, feat_channels=8,
        anchor_generator=ANCHORS)), 'without classes'),
    (lambda: head('RetinaHead', anchor_generator=ANCHORS, loss_cls=dict(
        type='mmdet.CrossEntropyLoss', use_sigmoid=False)), 'softmax'),
    (lambda: head('YOLOXHead', strides=[8, 16], feat_channels=8),
     'at objects alone'),
    (lambda: head('AutoAssignHead', strides=[8, 16],
                  regress_ranges=((-1, 64), (64, 1e8))), 'at objects alone'),
    (lambda: torch.nn.Linear(2, 2), 'no scores'),
    (lambda: None, 'no dense head')])
def test_heads_without_such_scores(made, reason):
    assert reason in scores_of(made())


class Net(torch.nn.Module):
    def __init__(self, bbox_head):
        super().__init__()
        self.bbox_head = bbox_head


def retina(classes=3, **anchors):
    made = head('RetinaHead', loss_cls=SIGMOID,
                anchor_generator=dict(ANCHORS, **anchors))
    made.num_classes = classes
    return Net(made)


def test_networks_whose_scores_differ():
    made = TASKS.build(dict(type='DetectionTask', scores=True))
    with pytest.raises(ConfigError, match=r"teacher 't' has 3 classes, 3 "
                       'anchors.*other sizes or ratios.*task.scores=False'):
        made.prepare(retina(), dict(t=retina(octave_base_scale=3)))
    with pytest.raises(ConfigError, match=r"'t' has .*strides 8, 32"):
        made.prepare(retina(), dict(t=retina(strides=[8, 32])))
    with pytest.raises(ConfigError, match="'t': it has no dense head"):
        made.prepare(retina(), dict(t=Net(None)))


GN, BN = dict(type='GN', num_groups=8), dict(type='BN')


@pytest.mark.parametrize('kind, kwargs, shared', [
    ('FCOSHead', dict(strides=[8, 16], norm_cfg=BN,
                      regress_ranges=((-1, 64), (64, 1e8))), True),
    ('ATSSHead', dict(anchor_generator=ONE, loss_cls=SIGMOID, norm_cfg=BN),
     True),
    # One level; no batch norm; norms or layers for each level.
    ('ATSSHead', dict(anchor_generator=dict(ONE, strides=[8]),
                      loss_cls=SIGMOID, norm_cfg=BN), False),
    ('ATSSHead', dict(anchor_generator=ONE, loss_cls=SIGMOID, norm_cfg=GN),
     False),
    ('RetinaSepBNHead', dict(num_ins=2, anchor_generator=ANCHORS,
                             loss_cls=SIGMOID, norm_cfg=BN), False),
    ('RTMDetSepBNHead', dict(anchor_generator=ONE, loss_cls=QUALITY,
                             norm_cfg=BN), False),
    ('YOLOXHead', dict(strides=[8, 16], feat_channels=8, norm_cfg=BN),
     False)])
def test_batch_norm_that_levels_share(kind, kwargs, shared, capfd):
    made = head(kind, **kwargs)
    DetectionTask().prepare(Net(made), {})
    assert shares_batch_norm(Net(made)) is shared
    assert ('share batch norm' in ''.join(capfd.readouterr())) is shared


def test_without_scores_there_is_no_judge():
    made = DetectionTask()
    assert made.judge is None and made.logit_taps(None, 'model') == []
    assert not made.quality(Output(), TRUTH).any()
    assert task().judge is not None
