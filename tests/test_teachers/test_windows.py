"""Teachers with a sliding window against MMSegmentation's own, and against
maps whose values say where they belong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmkd_rl.records import Batch
from mmkd_rl.taps import OutputTaps
from mmkd_rl.tasks import SegmentationTask
from mmkd_rl.teachers.loading import build_network
from mmkd_rl.teachers.teacher import FrozenTeacher
from mmkd_rl.teachers.windows import SlidingWindow, stitched

pytest.importorskip('mmseg')
SLIDE = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))


def segmentor(test_cfg, seed=0):
    torch.manual_seed(seed)
    return build_network(dict(
        type='EncoderDecoder',
        backbone=dict(type='mmkd_rl.CifarResNet', depth=8,
                      out_indices=(0, 1, 2)),
        decode_head=dict(type='FCNHead', in_channels=64, channels=8,
                         in_index=2, num_convs=1, num_classes=3,
                         concat_input=False),
        test_cfg=test_cfg), 'mmseg', 'model').eval()


def teacher(model):
    task = SegmentationTask()
    return FrozenTeacher('a', model, task.taps(model, None, 'a'), task)


@pytest.mark.parametrize('shape', [(128, 96), (100, 64), (64, 130)])
def test_scores_are_those_of_mmsegmentation(shape):
    """Each window by itself, at the places where slide_inference has them."""
    model = segmentor(SLIDE)
    images = torch.rand(2, 3, *shape)
    output, _ = teacher(model)(Batch(images))
    whole = segmentor(dict(mode='whole'))
    cells, count = torch.zeros(2, 3, *(n // 4 for n in shape)), 0
    for y in {min(i, shape[0] - 64) for i in range(0, shape[0], 32)}:
        for x in {min(i, shape[1] - 64) for i in range(0, shape[1], 32)}:
            part = whole(images[:, :, y:y + 64, x:x + 64], mode='tensor')
            # Nearest cell of a start that is no multiple of the stride.
            h, w = (min(round(i / 4), n - 16)
                    for i, n in zip((y, x), cells.shape[2:]))
            pad = (w, cells.shape[3] - w - 16, h, cells.shape[2] - h - 16)
            cells, count = (cells + F.pad(part, pad),
                            count + F.pad(torch.ones(16, 16), pad))
    torch.testing.assert_close(output.logits[0], cells / count)
    assert output.features[0].shape[2:] == cells.shape[2:]


def test_slide_inference_gives_the_same_classes():
    """MMSegmentation resizes scores before it averages them: nearly equal."""
    model = segmentor(SLIDE)
    images = torch.rand(2, 3, 128, 96)
    metas = [dict(ori_shape=(128, 96), img_shape=(128, 96))] * 2
    theirs = model.slide_inference(images, metas)
    ours = teacher(model)(Batch(images))[0].logits[0]
    ours = F.interpolate(ours, (128, 96), mode='bilinear')
    whole = F.interpolate(segmentor(dict(mode='whole'))(images, mode='tensor'),
                          (128, 96), mode='bilinear')
    near, far = ((x - theirs).abs().mean() for x in (ours, whole))
    assert near < far / 3


@pytest.mark.parametrize('shape', [(64, 64), (32, 48)])
def test_small_images_are_run_whole(shape):
    images = torch.rand(2, 3, *shape)
    outputs = [teacher(segmentor(cfg))(Batch(images))[0].logits[0]
               for cfg in (SLIDE, dict(mode='whole'))]
    assert torch.equal(*outputs)


@pytest.mark.parametrize('stride', [1, 4, 32])
@pytest.mark.parametrize('window', [
    SlidingWindow((64, 96), (42, 64)), SlidingWindow((96, 64), (96, 64)),
    SlidingWindow((64, 64), (20, 30))])
def test_each_value_comes_back_to_its_place(window, stride):
    """Maps of positions, cut into windows, are put together again."""
    rows, columns = torch.meshgrid(
        torch.arange(160.), torch.arange(224.), indexing='ij')
    image = torch.stack([rows, columns])[None]
    places = window.places(160, 224)
    parts = [F.avg_pool2d(image[:, :, row, column], stride)
             for row, column in places]
    if all(p.start % stride == 0 for place in places for p in place):
        found = stitched(parts, places, 160, 224)
        torch.testing.assert_close(found, F.avg_pool2d(image, stride))
    assert len({part.shape for part in parts}) == 1
    covered = torch.zeros(160, 224)
    for place in places:
        covered[place] = 1
    assert covered.all()


def test_vectors_are_averaged():
    window = SlidingWindow((2, 2), (2, 2))
    places = window.places(4, 2)
    found = stitched([torch.ones(1, 3), 3 * torch.ones(1, 3)], places, 4, 2)
    assert torch.equal(found, 2 * torch.ones(1, 3))


@pytest.mark.parametrize('cfg', [
    None, dict(mode='whole'), dict(rpn=dict(nms_pre=1))])
def test_other_models_have_none(cfg):
    model = nn.Identity()
    model.test_cfg = cfg
    assert SlidingWindow.of(model) is None


class OneSize(nn.Module):
    """A network like BEiT, with a bias for each pair of its patches."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 64, 64))
        self.test_cfg = SLIDE

    def forward(self, images, mode='tensor'):
        return images + self.bias


def test_a_network_that_takes_its_windows_alone():
    """Larger images are no problem; for smaller ones the message has the
    size."""
    made = FrozenTeacher('a', OneSize(), OutputTaps(
        OneSize(), [], [], 'a'), SegmentationTask())
    made.try_on(Batch(torch.rand(1, 3, 96, 128)))
    with pytest.raises(ValueError, match=r'input_size=\(64, 64\)'):
        made.try_on(Batch(torch.rand(1, 3, 48, 128)))


def test_taps_of_inner_layers_are_put_together_too():
    model = segmentor(SLIDE)
    made = teacher(model)
    made.listen(OutputTaps(model.backbone, ['layer1'], [], 'a').features)
    _, (inner, ) = made(Batch(torch.rand(1, 3, 128, 64)))
    assert inner.shape[2:] == (128, 64)
