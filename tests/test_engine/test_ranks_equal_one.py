"""Two processes with half a batch each train like one with the whole batch:
losses and gradients of every strategy and term, for images, pixels and
objects."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from mmkd_rl.registry import MODELS
from tests.commands import two_processes
from tests.test_distillers import test_detectors as detectors
from tests.test_weighting.mtkd_rl.test_learning_pixels import (
    PixelWorld,
    segmentor,
)
from tests.toy import World, distiller, samples, toy_teachers

#: Relations of AMTML-KD are those of pairs of images of one process.
STRATEGIES = [
    dict(type='AverageWeighting'), dict(type='AEKD'),
    dict(type='AEKD', average_gradients=True),
    dict(type='AMTMLKD', distance_weight=0., angle_weight=0.),
    dict(type='CAMKD', feature='teacher'), dict(type='EBKD'),
    dict(type='MTKDRL'), dict(type='MTKDRL', reward=dict(
        type='GradientReward')), dict(type='MMKD')
]
LOGITS = [dict(type='KDLoss'), dict(type='DISTLoss')]
#: MGD hides random pixels, others in each process.
FEATURES = [
    dict(type='FitNetLoss'), dict(type='FitNetLoss', standardize=True),
    dict(type='PKDLoss')
]
MAPS = [dict(type='CWDLogitLoss'), dict(type='CWDLoss'),
        dict(type='MGDLoss', mask_ratio=0.)]
OBJECTS = [dict(type='FGDLoss'), dict(type='BinaryKDLoss'),
           dict(type='CrossKDLoss'), dict(type='LDLoss'),
           dict(type='PKDLoss'), dict(type='CWDLogitLoss')]


def cases(folder):
    """Name, model and batch of each case."""
    made = {}
    teachers = toy_teachers(folder, 3)
    world = PixelWorld(0, 2)
    pixel_teachers = [
        world.teacher(folder / f'{n}.pth', right)
        for n, right in (('a', (1, 0)), ('b', (0, 1)), ('c', (1, 1)))]
    both = [dict(losses=[term]) for term in (*LOGITS, *FEATURES)]
    for i, options in enumerate([
            *(dict(weighting=w) for w in STRATEGIES), *both,
            dict(losses=[dict(type='NDLoss', means='running')]),
            # Not of pixels: the toolbox's own loss is a mean over the labelled
            # pixels of a process.
            dict(losses=[dict(type='FitNetLoss', loss_weight='auto')]),
            dict(losses=[dict(type='DKDLoss')])]):
        # Without batch norm, whose statistics are those of a process.
        made[f'images {i} {options}'] = distiller(
            teachers, projector=dict(norm=False), **options)
    for i, options in enumerate([
            *(dict(weighting=w) for w in STRATEGIES), *both,
            *(dict(losses=[term]) for term in MAPS)]):
        made[f'pixels {i} {options}'] = dict(
            type='mmkd_rl.MultiTeacherDistiller', student=segmentor(),
            teachers=pixel_teachers, task=dict(type='SegmentationTask'),
            probe_size=6, **options)
    for i, options in enumerate([
            *(dict(weighting=w, losses=OBJECTS[:2]) for w in STRATEGIES
              if w['type'] != 'MMKD' and w != dict(type='MTKDRL')),
            *(dict(losses=[term]) for term in OBJECTS)]):
        made[f'objects {i} {options}'] = detectors.distilled(
            _gfl(), [detectors.teacher('a', _gfl(12, 32)),
                     detectors.teacher('b', _gfl(8, 16))],
            scores=True, projector=dict(norm=False), **options)
    return made


def _gfl(*sizes):
    """Without batch norm, whose statistics are those of a process."""
    cfg = detectors.gfl(*sizes)
    # Scores of 0.5 and not of 0.01, so that images differ.
    cfg['bbox_head'].update(
        norm_cfg=dict(type='GN', num_groups=4),
        init_cfg=dict(type='Normal', layer='Conv2d', std=.1))
    assert cfg['backbone']['norm_eval']
    return cfg


def batch(name):
    """The whole batch of 8 images."""
    if name.startswith('images'):
        images, labels = World(0).batch(8)
        return images, samples(labels)
    if name.startswith('objects'):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(4, 3, 64, 64, generator=generator)
        # Images of other sizes, and one without objects.
        found = [*detectors.detection_samples(),
                 *detectors.objects()[:1],
                 *detectors.objects([[9., 9, 50, 20], [2, 2, 12, 12]],
                                    [2, 1])[:1]]
        return images, found
    from mmseg.structures import SegDataSample
    images, labels, _ = PixelWorld(0, 2).batch(8)
    labels[:2, 1:4] = 255
    labels[2] = 255  # not all halves have the same number of valid images
    return images, [SegDataSample(gt_sem_seg=PixelData(data=y[None]))
                    for y in labels]


def step(name, config, half=None):
    """Losses and gradients of one step on the batch, or on one half of it."""
    if name.startswith('objects'):
        init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    images, data_samples = batch(name)
    middle = len(images) // 2
    part = (slice(None), slice(0, middle), slice(middle, None))[
        0 if half is None else 1 + half]
    losses = model(images[part], data_samples[part], mode='loss')
    ours = {k: v for k, v in losses.items()
            if k in ('loss_logit', 'loss_feature', 'loss_mixture')}
    total = sum(ours.values())
    parameters = {n: p for n, p in model.named_parameters()}
    found = torch.autograd.grad(total, list(parameters.values()),
                                allow_unused=True)
    record = model.distillation.last_step.weights
    return (torch.stack([total.detach()]), {
        n: g for n, g in zip(parameters, found) if g is not None
    }, record.logit)


WORKER = """
import pathlib, sys, torch
import mmkd_rl
from tests.test_engine import test_ranks_equal_one as test
torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
folder = pathlib.Path(sys.argv[1])
result = {}
for name, config in torch.load(folder / 'cases', weights_only=False).items():
    total, gradients, weights = test.step(name, config, rank)
    for tensor in (total, *gradients.values()):
        torch.distributed.all_reduce(tensor)
        tensor /= 2
    result[name] = total, gradients, weights
torch.save(result, folder / f'result{rank}')
torch.distributed.destroy_process_group()
"""


@pytest.mark.filterwarnings('ignore')
def test_two_processes_train_like_one(tmp_path):
    pytest.importorskip('mmseg')
    pytest.importorskip('mmdet')
    made = cases(tmp_path)
    torch.save(made, tmp_path / 'cases')
    two_processes('-c', WORKER, tmp_path)
    halves = [torch.load(tmp_path / f'result{rank}', weights_only=False)
              for rank in range(2)]
    different = {}
    for name, config in made.items():
        total, gradients, weights = step(name, config)
        assert gradients and total > 0, name
        of_ranks, theirs, _ = halves[0][name]
        # Some gradients are zero but for rounding: a constant that a term
        # does not see.
        size = max(float(g.abs().max()) for g in gradients.values())
        pairs = [(total, of_ranks, float(total)),
                 (weights, torch.cat([half[name][2] for half in halves]), 1),
                 *((g, theirs[n], size) for n, g in gradients.items())]
        worst = max(float((a - b).abs().max()) / scale
                    for a, b, scale in pairs)
        if worst > 1e-5:
            different[name] = worst
    assert not different, different
