"""The agent must learn which teacher is right, and for which input.

Agents of the published code cannot (docs/mtkd_rl.md). These tests therefore
check only the generated weights, without the other sources of the action.
"""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmkd_rl.records import Batch
from mmkd_rl.registry import MODELS
from tests.toy import (
    CLASSES,
    SHAPE,
    World,
    classifier,
    samples,
    teacher_file,
)

EYE = torch.eye(CLASSES)
TEACHERS = 4


@pytest.fixture(autouse=True)
def quiet():
    """Filter the warning of MTKDRL that no hook trains the agent."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def train(teachers, batches, weighting, seed, epochs=8, iters=30):
    """Train by Algorithms 1 and 2 without a runner."""
    torch.manual_seed(seed)
    model = MODELS.build(
        dict(
            type='mmkd_rl.MultiTeacherDistiller',
            student=classifier(8, hidden=16),
            teachers=teachers,
            weighting=dict(type='MTKDRL', **weighting),
            probe_size=4))
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for _ in range(iters):
            images, labels = batches(64)[:2]
            losses = model(images, samples(labels), mode='loss')
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            remember(model)
        model.distillation.weighting.learner.update()
    return model


def remember(model):
    """Do the hook's work after an iteration."""
    distillation = model.distillation
    distillation.weighting.learner.remember(distillation.last_step.weights.record)


@torch.no_grad()
def generated(model, images: Tensor, labels: Tensor) -> Tensor:
    """w^gen of fresh data, [B, 2, M]."""
    model(images, samples(labels), mode='loss')
    distillation = model.distillation
    transition, *_ = distillation.last_step.weights.record
    return distillation.weighting.learner.policy(transition.state).exp()


def one_right(tmp_path: Path, world: World, noise: str) -> list[dict]:
    """Teachers of which the first is always right and the others know nothing:
    their outputs are either as confident as the first's, or nearly uniform."""
    files = [(world.prototypes, 6 * EYE)] + [
        (world.noise_weights(), (24 if noise == 'confident' else 0.1) * EYE)
        for _ in range(TEACHERS - 1)
    ]
    return [
        dict(
            name=f't{i}',
            config=classifier(CLASSES),
            checkpoint=teacher_file(tmp_path / f't{i}.pth', *weights))
        for i, weights in enumerate(files)
    ]


def mean_weight_on_the_right_one(tmp_path, noise, weighting, seed):
    world = World(seed)
    model = train(
        one_right(tmp_path, world, noise), world.batch, weighting, seed)
    weights = generated(model, *world.batch(1000))
    assert torch.allclose(weights.sum(-1), torch.ones(1000, 2), atol=1e-5)
    return weights.mean(0)[:, 0].tolist()  # logits, features


@pytest.mark.parametrize('seed', [0, 1, 2])
@pytest.mark.parametrize('noise', ['confident', 'soft'])
def test_finds_the_teacher_that_is_right(tmp_path, noise, seed):
    """With all defaults; equal weights would be 0.25."""
    for share in mean_weight_on_the_right_one(tmp_path, noise, {}, seed):
        assert share > 0.5


@pytest.mark.parametrize('noise', ['confident', 'soft'])
def test_the_label_free_reward_finds_it(tmp_path, noise):
    """Among logits; features have a reward of their own, and those of the
    other teachers tell the classes, too."""
    share, _ = mean_weight_on_the_right_one(
        tmp_path, noise, dict(reward=dict(type='GradientReward')), 0)
    assert share > 0.5


@pytest.mark.learning
@pytest.mark.parametrize('noise', ['confident', 'soft'])
@pytest.mark.parametrize('updater', ['DPG', 'DDPG', 'PPO'])
def test_other_updaters_find_it_too(tmp_path, noise, updater):
    for share in mean_weight_on_the_right_one(
            tmp_path, noise, dict(updater=dict(type=updater)), 0):
        assert share > 0.5


def test_the_papers_reward_finds_it_among_loud_ones(tmp_path):
    share, _ = mean_weight_on_the_right_one(
        tmp_path, 'confident', dict(reward=dict(type='DistanceReward')), 0)
    assert share > 0.5


def test_the_papers_reward_prefers_teachers_that_say_nothing(tmp_path):
    """A documented limitation of Eq. (6): a nearly uniform output is close to
    any output of the student. If this test fails, change the docs.
    """
    share, _ = mean_weight_on_the_right_one(
        tmp_path, 'soft', dict(reward=dict(type='DistanceReward')), 0)
    assert share < 0.25


class GroupWorld:
    """Images of three groups; the group can be seen in the image.

    An image is its class's prototype plus its group's direction plus noise.
    """
    GROUPS = 3

    def __init__(self, seed: int, noise: float = 0.15) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = noise
        basis = torch.linalg.qr(
            torch.randn(48, CLASSES + self.GROUPS,
                        generator=self.generator))[0].T
        self.prototypes, self.groups = basis.split((CLASSES, self.GROUPS))

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images, classes [B] and groups [B]."""
        labels = torch.randint(CLASSES, (size, ), generator=self.generator)
        groups = torch.randint(self.GROUPS, (size, ),
                               generator=self.generator)
        noise = torch.randn(size, 48, generator=self.generator)
        images = self.prototypes[labels] + self.groups[groups] \
            + self.noise * noise
        return images.view(size, *SHAPE), labels, groups

    def expert(self, path: Path, group: int) -> dict:
        """A teacher that is right on one group and confident noise elsewhere.

        Its hidden units are relu(<p_c + u_g, x> - 1), which fire for class c
        in its group, relu(2 <r_c, x> - 8 <u_g, x>), random mixtures of the
        prototypes that its group shuts, and relu(<u_h, x>), from which its
        feature shows the group.
        """
        # its outputs for other groups do not depend on the class
        noise = torch.randn(
            CLASSES, CLASSES, generator=self.generator) @ self.prototypes
        hidden = torch.cat([
            self.prototypes + self.groups[group], 2 * noise -
            8 * self.groups[group], self.groups
        ])
        bias = torch.zeros(len(hidden))
        bias[:CLASSES] = -1
        width = CLASSES + self.GROUPS
        mixing = torch.zeros(width, len(hidden))
        mixing[:CLASSES, :CLASSES] = EYE
        mixing[:CLASSES, CLASSES:2 * CLASSES] = EYE
        mixing[CLASSES:, 2 * CLASSES:] = torch.eye(self.GROUPS)
        head = torch.zeros(CLASSES, width)
        head[:, :CLASSES] = 6 * EYE
        torch.save({
            'backbone.hidden.weight': hidden.view(-1, *SHAPE),
            'backbone.hidden.bias': bias,
            'backbone.conv.weight': mixing[..., None, None],
            'backbone.conv.bias': torch.zeros(width),
            'head.fc.weight': head,
            'head.fc.bias': torch.zeros(CLASSES)
        }, path)
        return dict(
            name=f'expert{group}',
            config=classifier(width, hidden=len(hidden)),
            checkpoint=str(path))


def simplex(count: int, steps: int = 20) -> Tensor:
    """All weights that are multiples of 1 / steps, [N, count]."""
    axis = torch.arange(steps + 1)
    grid = torch.cartesian_prod(*[axis] * count)
    return grid[grid.sum(1) == steps] / steps


@pytest.mark.learning
@pytest.mark.parametrize('seed, weighting', [
    (0, {}), (1, {}), (0, dict(state=['feature', 'logit'])),
    (0, dict(reward=dict(type='GradientReward'))),
    *((0, dict(updater=dict(type=u))) for u in ('DPG', 'DDPG', 'PPO'))
])
def test_beats_the_best_constant_weights(tmp_path, seed, weighting):
    """If the best teacher depends on the input, the agent is better than any
    constant weights, also if its state does not contain the teachers' cross
    entropy, which depends on the label."""
    world = GroupWorld(seed)
    experts = [
        world.expert(tmp_path / f'{g}.pth', g) for g in range(world.GROUPS)
    ]
    model = train(experts, world.batch, weighting, seed)
    images, labels, groups = world.batch(1000)
    p_BMC = torch.stack(
        [o.logits[0] for o in model.distillation.teachers(Batch(images))],
        1).softmax(-1)
    p_BM = p_BMC[torch.arange(1000), :, labels]  # of the true class
    right = p_BM[torch.arange(1000), groups]
    assert right.mean() > 0.9  # experts are right on their own groups

    def quality(weights):
        """Cross entropy of the teachers' mixture with the labels."""
        return -(weights * p_BM).sum(-1).clamp_min(1e-12).log().mean()

    best = min(simplex(3), key=lambda w: float(quality(w)))
    constant, equal = quality(best), quality(torch.full((3, ), 1 / 3))
    assert constant <= equal
    w_B2M = generated(model, images, labels)
    # The label-free rule has a reward of their own for features, which are
    # not better where a teacher's classes are.
    heads = range(1 if 'reward' in weighting else 2)
    for head in heads:
        assert quality(w_B2M[:, head]) < 0.5 * constant
        on_the_right = w_B2M[torch.arange(1000), head, groups]
        by_constant = best[groups].mean()
        assert on_the_right.mean() > by_constant + 0.2
        for g in range(3):  # everywhere, not on average only
            assert on_the_right[groups == g].mean() > 0.45
