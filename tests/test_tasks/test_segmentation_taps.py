"""The default feature is the map that the decode head reads, in evaluation and
in training, in real segmentors."""

import pytest
import torch
from mmengine.structures import PixelData
from torch import nn

from mmkd_rl.records import Batch
from mmkd_rl.taps import Tap, find_elements
from mmkd_rl.tasks import SegmentationTask
from mmkd_rl.teachers.loading import build_network, load_model_config

SegDataSample = pytest.importorskip('mmseg.structures').SegDataSample


def network(config):
    model, scope = load_model_config(f'mmseg::{config}', 'model')
    model = build_network(model, scope, 'model')
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.
    return model


def read(model, taps):
    """The tapped map, and the input of the decode head."""
    seen = []
    head = model.decode_head
    head = head[0] if isinstance(head, nn.ModuleList) else head
    forward = type(head).forward.__get__(head)
    # Segmentors call it without hooks.
    head.forward = lambda maps: seen.append(maps) or forward(maps)
    output = SegmentationTask().infer(
        model, taps, Batch(torch.rand(2, 3, 128, 128)))
    return output.features[0], seen[0]


@pytest.mark.parametrize('config, index', [
    ('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py', 0),
    ('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py', 0),
    ('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py', -1),
    ('point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py', 3),
    ('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', 3)])
def test_the_feature_is_what_the_decode_head_reads(config, index):
    model = network(config)
    taps = SegmentationTask().taps(model, None, 'student')
    find_elements(model.eval(), taps.features, lambda: 1 / 0)  # not needed
    for mode in (True, False):
        feature, maps = read(model.train(mode), taps)
        assert feature is maps[index]


def test_scores_of_the_first_of_two_heads():
    """PointRend's training runs its first head twice."""
    model = network('point_rend/pointrend_r50_4xb2-80k_cityscapes-'
                    '512x1024.py').eval()
    task, images = SegmentationTask(), torch.rand(1, 3, 128, 128)
    taps = task.taps(model, None, 'student')
    sample = SegDataSample(metainfo=dict(img_shape=(128, 128)))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, 128, 128).long())
    with taps.recording(model) as recording:
        model.loss(images, [sample])
    logits, = recording.output().logits
    expected, = task.infer(model, taps, Batch(images)).logits
    assert logits.requires_grad and torch.equal(logits, expected)


@pytest.mark.parametrize('config', [
    'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
    'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py'])
def test_more_maps_in_training_than_in_evaluation(config):
    """In both modes the map is the decode head's; without the search it is
    another one, or the right one by luck."""
    model = network(config).eval()
    batch = Batch(torch.rand(2, 3, 128, 128))
    taps = SegmentationTask().taps(model, None, 'student')
    find_elements(model, taps.features,
                  lambda: SegmentationTask().run(model, batch))
    assert all(not m.training for m in model.modules())
    feature, maps = read(model, taps)
    assert feature is maps
    trained, maps = read(model.train(), taps)
    assert isinstance(maps, tuple) and trained is maps[1]
    assert trained.shape[1:] == feature.shape[1:]


class Branches(nn.Module):

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def forward(self, x):
        out = 2 * x
        return (out, *self.extra(out)) if self.training else out


@pytest.mark.parametrize('extra, message', [
    (lambda out: (out.clone(), ), '2 in training, and 2 of them'),
    (lambda out: (3 * out, ), None)])
def test_the_element_must_be_a_single_one(extra, message):
    model = nn.Sequential(Branches(extra)).eval()
    tap = Tap(model, '0', key='student.taps.feature')

    def find():
        find_elements(model, [tap], lambda: model(torch.ones(1, 2)))

    if message is None:
        find()
        assert tap.in_training == 0
    else:
        with pytest.raises(ValueError, match=f'taps.feature.*{message}'):
            find()
