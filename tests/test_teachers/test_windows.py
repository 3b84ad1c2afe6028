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
from mmkd_rl.teachers.windows import SlidingWindow

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
    cells, count = torch.zeros(2, 3, *(-(-n // 4) for n in shape)), 0
    for y in {min(i, shape[0] - 64) for i in range(0, shape[0], 32)}:
        for x in {min(i, shape[1] - 64) for i in range(0, shape[1], 32)}:
            part = whole(images[:, :, y:y + 64, x:x + 64], mode='tensor')
            # The last window's cells end with the map.
            h, w = (n - 16 if i + 64 == side else i // 4
                    for i, n, side in zip((y, x), cells.shape[2:], shape))
            pad = (w, cells.shape[3] - w - 16, h, cells.shape[2] - h - 16)
            cells, count = (cells + F.pad(part, pad),
                            count + F.pad(torch.ones(16, 16), pad))
    torch.testing.assert_close(output.logits[0], cells / count)
    assert output.features[0].shape[2:] == cells.shape[2:]


def test_slide_inference_gives_nearly_the_same_scores():
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


def centres(length, stride):
    """A map [1, 1, 1, cells] of the positions of its cells, as a network with
    padding makes it."""
    return torch.arange(0., length, stride).view(1, 1, 1, -1)


@pytest.mark.parametrize('stride, crop, step', [
    *((stride, *window) for stride in (1, 4, 8, 16, 32) for window in (
        (480, 320), (512, 341), (512, 512), (513, 513), (640, 426),
        (769, 513), (64, 20), (64, 100))), (14, 518, 259)])
def test_each_value_comes_back_to_its_place(stride, crop, step):
    """Maps of positions, cut into windows and put together again, for images
    of all sizes: no cell is empty, the map has the size of the whole image's,
    and cells are at most one window's rounding from their place."""
    window = SlidingWindow((8, crop), (8, step))
    for length in [*range(crop, 2 * crop + 64, 13), 1024, 2048]:
        places = window.places(8, length)
        parts = [place.start + centres(crop, stride)
                 for place in places.columns]
        assert {part.shape for part in parts} == {parts[0].shape}
        found = places.stitch([p.expand(1, 1, 8, -1) for p in parts])[0, 0, 0]
        whole = centres(length, stride).flatten()
        assert abs(len(found) - len(whole)) <= (crop % stride > 0)
        assert found.isfinite().all()
        aligned = all(place.start % stride == 0 for place in places.columns)
        shared = min(len(found), len(whole))
        error = (found[:shared] - whole[:shared]).abs().max()
        assert error <= (0 if aligned else stride)
        covered = torch.zeros(length)
        for place in places.columns:
            covered[place] = 1
        assert covered.all()


def test_vectors_are_averaged_and_tokens_refused():
    places = SlidingWindow((2, 2), (2, 2)).places(4, 2)
    found = places.stitch([torch.ones(1, 3), 3 * torch.ones(1, 3)])
    assert torch.equal(found, 2 * torch.ones(1, 3))
    with pytest.raises(ValueError, match=r'shape \(1, 9, 3\).*whole'):
        places.stitch([torch.ones(1, 9, 3)] * 2)


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
