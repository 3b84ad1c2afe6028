"""The task of segmentors against loops over pixels, and real segmentors."""

import pytest
import torch
from mmengine.structures import PixelData
from torch.nn.functional import binary_cross_entropy_with_logits

from mmkd_rl.records import Batch, Output, OutputSpec
from mmkd_rl.tasks import SegmentationTask
from mmkd_rl.teachers.loading import build_network

mmseg = pytest.importorskip('mmseg')
CLASSES, IGNORED = 3, 255


def task(ignored=IGNORED, classes=CLASSES):
    made = SegmentationTask(ignored)
    made.num_classes = classes
    return made


def batch(labels):
    from mmseg.structures import SegDataSample
    return Batch(torch.rand(len(labels), 3, *labels.shape[1:]), [
        SegDataSample(gt_sem_seg=PixelData(data=label[None]))
        for label in labels])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def labels():
    """8x12 pixels; the second image has ignored rows and padding, the third
    no label at all."""
    y = torch.randint(CLASSES, (3, 8, 12),
                      generator=torch.Generator().manual_seed(0))
    y[1, :3] = IGNORED
    y[1, :, 9:] = 254
    y[2] = IGNORED
    return y


def pixels(labels, z):
    """(image, row, column, label) of the logits' grid, at the centre of each
    cell; pixels without a label are left out."""
    rows, columns = labels.shape[1] / z.shape[2], labels.shape[2] / z.shape[3]
    for b in range(len(labels)):
        for h in range(z.shape[2]):
            for w in range(z.shape[3]):
                row, column = int((h + .5) * rows), int((w + .5) * columns)
                y = int(labels[b, row, column])
                if y < CLASSES:
                    yield b, h, w, y


def per_image(found, count):
    return torch.tensor([
        sum(v for b, v in found if b == i) /
        max(1, sum(b == i for b, v in found)) for i in range(count)])


@pytest.mark.parametrize('size', [(8, 12), (4, 6), (2, 3)])
def test_losses_are_means_over_labelled_pixels(labels, size):
    z = draw(3, CLASSES, *size)
    truth, output = task().truth(batch(labels)), Output(logits=(z, ))
    assert truth.count.tolist() == [96, 5 * 9, 0]
    ce, margin = [], []
    for b, h, w, y in pixels(labels, z):
        p = z[b, :, h, w].softmax(0)
        ce.append((b, float(p[y].log())))
        margin.append((b, float(p[y] - max(p[c] for c in range(CLASSES)
                                           if c != y))))
    torch.testing.assert_close(
        task().quality(output, truth), per_image(ce, 3))
    torch.testing.assert_close(
        task().margin(output, truth), per_image(margin, 3))


def test_the_gradient_is_that_of_the_loss(labels):
    z = draw(3, CLASSES, 4, 6).requires_grad_()
    truth = task().truth(batch(labels))
    output = Output(logits=(z, ))
    slope, = task().logit_gradient(output, truth)
    (-task().quality(output, truth)).sum().backward()
    counts = torch.zeros(3)
    for b, *_ in pixels(labels, z):
        counts[b] += 1
    torch.testing.assert_close(
        slope / counts.clamp_min(1).view(-1, 1, 1, 1), z.grad)


def test_entropy_and_summary_leave_padding_out(labels):
    """The average over valid pixels; a pixel that stands for a valid and an
    ignored one has half the weight."""
    z = draw(3, CLASSES, 4, 6)
    truth = task().truth(batch(labels))
    p, valid = z.softmax(1), truth.valid_at(z)
    summary = task().logit_summary(Output(logits=(z, )), truth)
    entropy = task().entropy(Output(logits=(z, )), truth)
    for b in range(2):
        total = sum(valid[b, h, w] * p[b, :, h, w]
                    for h in range(4) for w in range(6))
        torch.testing.assert_close(summary[b], total / valid[b].sum())
        plogp = (p[b].log() * p[b]).sum(0)
        mean = -sum(valid[b, h, w] * plogp[h, w] for h in range(4)
                    for w in range(6)) / valid[b].sum()
        torch.testing.assert_close(entropy[b], mean)
    assert summary.shape == (3, CLASSES) and summary[2].eq(0).all()
    spec = OutputSpec('a', ((4, 4, 6), ), ((CLASSES, 4, 6), ))
    assert task().summary_sizes(spec)['logit'] == summary.shape[1]


def test_teachers_logits_get_the_students_resolution():
    """A constant stays; a finer map is averaged, not sampled."""
    own = Output(logits=(torch.zeros(1, 2, 4, 4), ))
    for size in ((2, 2), (4, 4), (16, 16)):
        found = task().match(own, Output(logits=(torch.ones(1, 2, *size), )))
        torch.testing.assert_close(found.logits[0], torch.ones(1, 2, 4, 4))
    checked = torch.zeros(1, 2, 16, 16)
    checked[..., ::2] = 2.
    found = task().match(own, Output(logits=(checked, ))).logits[0]
    assert (found - 1).abs().max() < .2


def test_classes_that_a_teacher_does_not_know(labels):
    truth = task().truth(batch(labels))
    known = torch.tensor([[True, True, True], [True, False, False]])
    share = task().class_coverage(truth, known)
    assert torch.equal(share[:, 0], torch.ones(3))
    for b in range(2):
        kept = labels[b][labels[b] < CLASSES]
        assert share[b, 1] == pytest.approx(float((kept == 0).float().mean()))
    seen = task().with_coverage(truth, known)
    level = torch.zeros(3, 4, 8, 12)
    assert torch.equal(seen.valid_at(level, 0), truth.valid)
    assert torch.equal(seen.valid_at(level, 1), (labels == 0).float())
    assert torch.equal(seen.valid_at(level), truth.valid)


def test_a_batch_without_labels_has_loss_zero(labels):
    truth = task().truth(batch(torch.full_like(labels, IGNORED)))
    value = torch.tensor([1., torch.nan, 2.])
    assert truth.mean(value) == 0


@pytest.mark.parametrize('samples, message', [
    ([], 'no gt_sem_seg.*LoadAnnotations'),
    ([object()] * 2, 'no gt_sem_seg.*LoadAnnotations')])
def test_samples_without_labels_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        task().truth(Batch(torch.rand(2, 3, 4, 4), samples))


def test_labels_of_another_size_are_refused(labels):
    made = batch(labels)
    with pytest.raises(ValueError, match=r'gt_sem_seg.*\(8, 12\).*\(4, 4\)'):
        task().truth(Batch(torch.rand(3, 3, 4, 4), made.samples))


@pytest.mark.parametrize('classes', [1, 2])
def test_two_classes_in_one_channel(classes):
    """The softmax of (0, z) is the sigmoid of z, so the loss is MMSeg's."""
    model = build_network(dict(
        type='EncoderDecoder',
        backbone=dict(type='ResNetV1c', depth=18, base_channels=4),
        decode_head=dict(
            type='FCNHead', in_channels=32, in_index=3, channels=4,
            num_convs=1, num_classes=classes, out_channels=1,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))),
        'mmseg', 'model').eval()
    made = SegmentationTask()
    made.prepare(model, {})
    y = torch.randint(2, (2, 64, 64))
    y[:, :32] = 255
    given = batch(y)
    output = made.infer(model, made.taps(model, None, 'student'), given)
    z, y = output.logits[0], y[:, 16::32, 16::32]
    assert z.shape == (2, 2, 2, 2) and made.num_classes == 2
    torch.testing.assert_close(
        made.quality(output, made.truth(given)),
        -torch.stack([binary_cross_entropy_with_logits(
            b[1][labels != 255], labels[labels != 255].float())
            for b, labels in zip(z, y)]))
