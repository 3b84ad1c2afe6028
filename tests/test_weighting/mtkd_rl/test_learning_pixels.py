"""The agent of segmentors must learn which teacher is right on an image.

The world: a pixel is the prototype of its class plus noise, with a direction
that all pixels of an image share (its group).
"""

import logging

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.structures import PixelData
from torch import nn

from mmkd_rl.registry import MODELS

pytest.importorskip('mmseg')
CLASSES, CHANNELS, SIDE, TEACHERS = 4, 3, 6, 4
EYE = torch.eye(CLASSES)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@MODELS.register_module(force=True)
class ToyPixels(BaseModule):
    """Two layers over single pixels, [B, 3, H, W] -> [B, width, H, W]."""

    def __init__(self, width: int = 8, hidden: int = 16, init_cfg=None):
        super().__init__(init_cfg)
        self.hidden = nn.Conv2d(CHANNELS, hidden, 1)
        self.conv = nn.Conv2d(hidden, width, 1)

    def forward(self, x):
        return (self.conv(self.hidden(x).relu()), )


def segmentor(width=8, hidden=16):
    return dict(
        type='mmseg.EncoderDecoder',
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
        backbone=dict(type='mmkd_rl.ToyPixels', width=width, hidden=hidden),
        decode_head=dict(
            type='mmseg.FCNHead', in_channels=width, channels=width,
            in_index=0, num_convs=0, concat_input=False, dropout_ratio=0.,
            num_classes=CLASSES, align_corners=False, loss_decode=dict(
                type='mmseg.CrossEntropyLoss', avg_non_ignore=True)),
        train_cfg=dict(), test_cfg=dict(mode='whole'))


class PixelWorld:
    """Images of pixels in the plane; the third channel is the group's.

    Args:
        seed: Seed of all random numbers.
        groups: Number of kinds of images.
    """

    def __init__(self, seed: int, groups: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        angle = torch.arange(CLASSES) * 2 * torch.pi / CLASSES
        self.prototypes = torch.stack([angle.cos(), angle.sin()], 1)
        self.groups = groups

    def draw(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def batch(self, size: int):
        """Images, label maps with ignored pixels, and groups [B]."""
        labels = torch.randint(CLASSES, (size, SIDE, SIDE),
                               generator=self.generator)
        groups = torch.randint(self.groups, (size, ),
                               generator=self.generator)
        plane = self.prototypes[labels].movedim(3, 1)
        plane = plane + .15 * self.draw(*plane.shape)
        third = groups.view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE) * 2. - 1
        labels[:, 0] = 255
        return torch.cat([plane, third], 1), labels, groups

    def teacher(self, path, right: tuple[float, float]) -> dict:
        """A teacher that gives the true class in the groups with 1 and the
        opposite one, as confident, in those with 0.

        Its hidden units are relu(<p_c, x> -+ 4 g): g, the third channel, shuts
        one half of them.
        """
        weight = torch.zeros(2 * CLASSES, CHANNELS)
        weight[:, :2] = self.prototypes.repeat(2, 1)
        weight[:CLASSES, 2], weight[CLASSES:, 2] = -4., 4.
        bias = torch.full((2 * CLASSES, ), -3.)  # open if 4 |g| - 3 > 0
        opposite = EYE.roll(CLASSES // 2, 0)
        mixing = torch.cat([EYE if r else opposite for r in right], 1)
        shape = (..., None, None)
        torch.save({
            'backbone.hidden.weight': weight[shape],
            'backbone.hidden.bias': bias,
            'backbone.conv.weight': mixing[shape],
            'backbone.conv.bias': torch.zeros(CLASSES),
            'decode_head.conv_seg.weight': 6 * EYE[shape],
            'decode_head.conv_seg.bias': torch.zeros(CLASSES)
        }, path)
        return dict(name=path.stem, config=segmentor(CLASSES, 2 * CLASSES),
                    checkpoint=str(path))


def samples(labels):
    from mmseg.structures import SegDataSample
    return [SegDataSample(gt_sem_seg=PixelData(data=y[None])) for y in labels]


def trained(teachers, world, reward, epochs=8, iters=20):
    """Algorithms 1 and 2 without a runner."""
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='mmkd_rl.MultiTeacherDistiller', student=segmentor(),
        teachers=teachers, task=dict(type='SegmentationTask'),
        logit_loss=dict(type='KDLoss', temperature=1.),
        weighting=dict(type='MTKDRL', reward=reward), probe_size=SIDE))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=.01)
    learner = model.distillation.weighting.learner
    for _ in range(epochs):
        for _ in range(iters):
            images, labels, _ = world.batch(32)
            losses = model(images, samples(labels), mode='loss')
            optimizer.zero_grad()
            model.parse_losses(losses)[0].backward()
            optimizer.step()
            learner.remember(model.distillation.last_step.weights.record)
        learner.update()
    return model


@torch.no_grad()
def generated(model, images, labels):
    """w^gen of fresh data, [B, 2, M]."""
    model(images, samples(labels), mode='loss')
    distillation = model.distillation
    transition, *_ = distillation.last_step.weights.record
    return distillation.weighting.learner.policy(transition.state).exp()


REWARDS = [dict(type='AgreementReward'), dict(type='GradientReward')]


@pytest.mark.parametrize('reward', REWARDS, ids=lambda r: r['type'])
def test_finds_the_teacher_that_is_right(tmp_path, reward):
    world = PixelWorld(0, 2)
    teachers = [world.teacher(tmp_path / f't{i}.pth', (i == 2, i == 2))
                for i in range(TEACHERS)]
    model = trained(teachers, world, reward)
    weights = generated(model, *world.batch(200)[:2]).mean(0)
    assert weights[0, 2] > .5
    # Features of the others tell the classes as well, in another order; only
    # the label-free rule has a reward of their own for features.
    if reward['type'] == 'AgreementReward':
        assert weights[1, 2] > .5


@pytest.mark.parametrize('reward', REWARDS, ids=lambda r: r['type'])
def test_finds_the_one_that_is_right_on_the_image(tmp_path, reward):
    """Two experts: constant weights would give each a half."""
    world = PixelWorld(1, 2)
    teachers = [world.teacher(tmp_path / 'a.pth', (1, 0)),
                world.teacher(tmp_path / 'b.pth', (0, 1))]
    model = trained(teachers, world, reward)
    images, labels, groups = world.batch(200)
    weights = generated(model, images, labels)
    # Which half of the hidden units is open decides who is right.
    quality = torch.stack([
        model.distillation.task.quality(o, model.distillation.task.truth(
            _batch(images, labels))) for o in
        model.distillation.teachers(_batch(images, labels))], 1)
    best = quality.argmax(1)
    assert 50 < best.sum() < 150
    share = weights[torch.arange(200), 0, best]
    assert share.mean() > .7
    assert share[best == 0].mean() > .5 and share[best == 1].mean() > .5


def _batch(images, labels):
    from mmkd_rl.records import Batch
    return Batch(images, samples(labels))
