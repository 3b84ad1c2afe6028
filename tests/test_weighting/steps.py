"""Checks for every strategy in a real training of the toy student."""

import copy
from pathlib import Path

import torch

from mmkd_rl.registry import MODELS
from tests.toy import (
    World,
    distiller,
    samples,
    toy_runner,
    toy_teachers,
)


def check_training(folder, weighting: dict, count: int = 2,
                   own_parameters: int = 0, hooks=()) -> None:
    """Run two iterations with every combination of losses, and check the
    checkpoint, the export and a copy.

    Args:
        folder: Folder for files.
        weighting: Config of the strategy.
        count: Number of teachers.
        own_parameters: Number of tensors that the strategy trains.
        hooks: ``custom_hooks`` of the config.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    teachers = toy_teachers(folder, count)
    for i, losses in enumerate((dict(), dict(logit_loss=None),
                                dict(feature_loss=None),
                                dict(logit_loss=dict(type='DKDLoss')))):
        torch.manual_seed(0)
        runner = toy_runner(
            folder / f'run{i}',
            distiller(teachers, weighting=weighting, **losses),
            epochs=1,
            size=16,
            hooks=[*hooks, dict(type='EMAHook'),
                   dict(type='StudentExportHook')])
        strategy = runner.model.distillation.weighting
        before = copy.deepcopy(strategy.state_dict())
        runner.train()
        saved = torch.load(
            folder / f'run{i}' / 'epoch_1.pth',
            weights_only=False)['state_dict']
        assert all(v.isfinite().all() for v in saved.values())
        own = {n for n in saved if n.startswith('distillation.weighting.')}
        assert len(own) == own_parameters
        after = strategy.state_dict()
        assert all(not torch.equal(v, before[n]) for n, v in after.items()) \
            or i == 1
        exported = torch.load(
            folder / f'run{i}' / 'student.pth',
            weights_only=True)['state_dict']
        assert set(exported) == {n for n in runner.model.state_dict()
                                if not n.startswith('distillation.')}

    model = MODELS.build(distiller(teachers, weighting=weighting)).train()
    images, labels = World().batch(4)
    twin = copy.deepcopy(model)
    first = model(images, samples(labels), mode='loss')
    for name, value in twin(images, samples(labels), mode='loss').items():
        torch.testing.assert_close(value, first[name])
    # one image, mixed precision, double precision, evaluation
    runs = [model(images[:1], samples(labels[:1]), mode='loss')]
    with torch.autocast('cpu', torch.bfloat16):
        runs.append(model(images, samples(labels), mode='loss'))
    for losses in runs:
        sum(v for n, v in losses.items() if 'loss' in n).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        model(images, samples(labels), mode='loss')
    model.double()
    losses = model(images.double(), samples(labels), mode='loss')
    assert all(v.isfinite() for v in losses.values())


def remember(model):
    """Do the hook's work after an iteration."""
    distillation = model.distillation
    distillation.weighting.learner.remember(distillation.last_step.weights.record)
