"""Small real parts for tests: tiny networks, and data from random numbers.

The toy world: an image is the prototype of its class plus noise, so that a
linear network with the prototypes as weights is a teacher that is right.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModule
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmkd_rl.context import WeightingContext
from mmkd_rl.losses import FitNetLoss, KDLoss
from mmkd_rl.records import (
    Batch,
    DistillationBatch,
    Gaps,
    Output,
    OutputSpec,
    Truth,
)
from mmkd_rl.registry import DATASETS, HOOKS, MODELS
from mmkd_rl.tasks import ClassificationTask

CLASSES = 5
SHAPE = (3, 4, 4)


@MODELS.register_module(force=True)
class ToyBackbone(BaseModule):
    """A convolution over the whole image, [B, 3, 4, 4] -> [B, width, 1, 1];
    ``hidden`` puts a layer with ReLU before it."""

    def __init__(self, width: int = 8, hidden: int = 0, init_cfg=None):
        super().__init__(init_cfg)
        self.hidden = nn.Conv2d(3, hidden, 4) if hidden else None
        self.conv = nn.Conv2d(hidden or 3, width, 1 if hidden else 4)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        if self.hidden is not None:
            x = self.hidden(x).relu()
        return (self.conv(x), )


def classifier(width: int = 8, hidden: int = 0, classes: int = CLASSES,
               **kwargs) -> dict:
    """Config of an MMPretrain classifier on the toy backbone."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmkd_rl.ToyBackbone', width=width, hidden=hidden),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=classes,
            in_channels=width,
            loss=dict(type='mmpretrain.CrossEntropyLoss')),
        **kwargs)


def teacher_file(path, features: Tensor, scores: Tensor) -> str:
    """Write a checkpoint of the linear network z = scores @ features @ x.

    Args:
        path: File to write.
        features: [width, 48].
        scores: [C, width].
    """
    torch.save(
        dict(
            state_dict={
                'backbone.conv.weight': features.view(-1, *SHAPE).clone(),
                'backbone.conv.bias': torch.zeros(len(features)),
                'head.fc.weight': scores.clone(),
                'head.fc.bias': torch.zeros(len(scores)),
            }), path)
    return str(path)


def samples(labels: Tensor) -> list[DataSample]:
    """MMPretrain's data samples of class indices."""
    return [DataSample().set_gt_label(int(y)) for y in labels]


class World:
    """Images of known classes.

    Args:
        seed: Seed of all random numbers.
        noise: Standard deviation of the noise; prototypes have length 1.
    """

    def __init__(self, seed: int = 0, noise: float = 0.25) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = noise
        self.prototypes = torch.linalg.qr(
            torch.randn(48, CLASSES, generator=self.generator))[0].T

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images [B, 3, 4, 4] and class indices [B]."""
        labels = torch.randint(CLASSES, (size, ), generator=self.generator)
        noise = torch.randn(size, 48, generator=self.generator)
        return (self.prototypes[labels] + self.noise * noise).view(
            size, *SHAPE), labels

    def noise_weights(self) -> Tensor:
        """Random unit directions, [C, 48]: a teacher that knows nothing."""
        return torch.nn.functional.normalize(
            torch.randn(CLASSES, 48, generator=self.generator), dim=1)


@DATASETS.register_module(force=True)
class WorldDataset(torch.utils.data.Dataset):
    """Images of a toy world, in memory.

    Args:
            size: Number of images.
            seed: Seed of the world.
            jitter: Size of noise that is drawn at each access from the global
                generators of NumPy, PyTorch and Python, like augmentations.
    """

    metainfo = {}

    def __init__(self, size: int = 32, seed: int = 0,
                 jitter: float = 0.) -> None:
        self.images, self.labels = World(seed).batch(size)
        self.jitter = jitter

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        image = self.images[index]
        if self.jitter:
            noise = torch.from_numpy(
                np.random.standard_normal(SHAPE).astype(  # noqa: NPY002
                    'float32'))
            image = image + self.jitter * (
                noise + .1 * torch.randn(SHAPE) + .1 * random.random())
        return dict(
            inputs=image,
            data_samples=DataSample().set_gt_label(int(self.labels[index])))


@HOOKS.register_module(force=True)
class DumpHook(Hook):
    """Writes the state of each process at the end of training.

    Args:
        folder: Folder for ``rank0.pth`` and so on.
    """

    priority = 'VERY_LOW'

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def after_train(self, runner: Runner) -> None:
        """Write the file of this process."""
        model = getattr(runner.model, 'module', runner.model)
        content = dict(model=model.state_dict())
        if hasattr(model, 'distillation'):
            content['agent'] = \
                model.distillation.weighting.learner.state_dict()
        torch.save(content, Path(self.folder) / f'rank{get_rank()}.pth')


class CallHook(Hook):
    """Calls a function before the given iteration of training.

    Args:
            function: Function of the runner.
            iteration: Iteration, counted from 0 over the whole training.
    """

    def __init__(self, function, iteration: int) -> None:
        self.function, self.iteration = function, iteration

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch=None) -> None:
        """Call the function in its iteration."""
        if runner.iter == self.iteration:
            self.function(runner)


def toy_teachers(folder, count: int = 2, scale: float = 6.) -> list[dict]:
    """Configs of teachers with checkpoints in ``folder``: the first is right,
    the others are confident noise."""
    world = World()
    teachers = []
    for i in range(count):
        path = teacher_file(
            Path(folder) / f'teacher{i}.pth',
            world.noise_weights() if i else world.prototypes,
            scale * torch.eye(CLASSES))
        teachers.append(
            dict(name=f't{i}', config=classifier(CLASSES), checkpoint=path))
    return teachers


def distiller(teachers: list[dict], **kwargs) -> dict:
    """Config of a distiller with the toy student."""
    return {
        **dict(
            type='mmkd_rl.MultiTeacherDistiller',
            student=classifier(8, hidden=6),
            teachers=teachers,
            probe_size=4),
        **kwargs
    }


_runs = itertools.count()


def toy_runner(work_dir, model: dict, epochs: int = 2, hooks=(),
               size: int = 32, batch_size: int = 8, validate: bool = False,
               jitter: float = 0., call: tuple | None = None,
               **kwargs) -> Runner:
    """A real runner on the toy world.

    Args:
            work_dir: Folder of the run.
            model: Config of the model.
            epochs: Number of epochs.
            hooks: ``custom_hooks`` of the config.
            size: Number of training images.
            batch_size: Batch size in training.
            validate: Whether to validate after every epoch.
        jitter: See :class:`WorldDataset`.
        call: Arguments of a :class:`CallHook`.
        **kwargs: Further keys of the config.
    """
    loader = dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dict(type='mmkd_rl.WorldDataset', size=size, jitter=jitter),
        sampler=dict(type='DefaultSampler', shuffle=True))
    cfg = dict(
        default_scope='mmkd_rl',
        work_dir=str(work_dir),
        # MMEngine keeps one visualiser for each name, and names have a time in
        # seconds only.
        experiment_name=f'toy{next(_runs)}',
        model=model,
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2)),
        custom_hooks=list(hooks),
        log_level='ERROR')
    if validate:
        cfg.update(
            val_dataloader=dict(
                loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            val_cfg=dict(),
            val_evaluator=dict(type='mmpretrain.Accuracy'))
    # Information about the machine for the log takes seconds to collect.
    with mock.patch.object(Runner, '_log_env'):
        runner = Runner.from_cfg(
            Config({**cfg, **kwargs}, format_python_code=False))
    if call is not None:
        runner.register_hook(CallHook(*call))
    return runner


def spec(name: str = 'student', classes: int = CLASSES,
         shape: tuple[int, ...] = (8, 1, 1), known=None) -> OutputSpec:
    """Sizes of an output with one feature and one level of logits."""
    return OutputSpec(name, (shape, ), ((classes, ), ), known)


def output(logits: Tensor, feature: Tensor) -> Output:
    """Output with one level of features and logits."""
    return Output((feature, ), (logits, ))


def truth(targets: Tensor) -> Truth:
    """Truth of a classifier's images."""
    return Truth.of_labels(targets)


def batch(images: Tensor, labels: Tensor) -> Batch:
    """Images with their data samples."""
    return Batch(images, samples(labels))


def context(count: int = 3,
            logit_weight: float | None = 1.,
            feature_weight: float | None = 5.,
            temperature: float = 4.,
            **kwargs) -> WeightingContext:
    """Context that a strategy gets when it is built.

    Args:
        count: Number of teachers.
        logit_weight: Weight of a KD term; ``None`` for no KD term.
        feature_weight: Weight of a FitNet term; ``None`` for no FitNet term.
        temperature: Temperature of the KD term.
        **kwargs: Further attributes of the context.
    """
    made = {
        **dict(
            student=spec(),
            teachers=tuple(spec(f't{i}') for i in range(count)),
            task=ClassificationTask()),
        **kwargs
    }
    terms = []
    if logit_weight is not None:
        terms.append(KDLoss(temperature, logit_weight))
    if feature_weight is not None:
        terms.append(FitNetLoss(feature_weight))
    for term in terms:
        term.build(made['student'], made['teachers'])
    return WeightingContext(**{'terms': tuple(terms), **made})


def random_batch(size: int = 6, count: int = 3, seed: int = 0,
                 targets: Tensor | None = None,
                 **kwargs) -> DistillationBatch:
    """A batch of random numbers that fits :func:`context`.

    Args:
            size: Batch size B.
            count: Number of teachers M.
            seed: Seed of all numbers.
        targets: Class indices or probabilities, instead of random ones.
        **kwargs: Attributes of the batch.
    """
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g)

    def random_output():
        return output(3 * randn(size, CLASSES), randn(size, 8, 1, 1))

    student = random_output()
    teachers = tuple(random_output() for _ in range(count))
    labels = torch.randint(CLASSES, (size, ), generator=g)
    return DistillationBatch(**{
        **dict(
            student=student,
            teachers=teachers,
            truth=truth(labels if targets is None else targets),
            gaps=Gaps(
                randn(size, count).square(),
                randn(size, count).square(),
                randn(size, count).tanh())),
        **kwargs
    })


def flow_classifier(teachers: list[dict] | str, width: int = 8,
                    hidden: int = 6, **kwargs) -> dict:
    """Config of a classifier with Knowledge Flow.

    Args:
        teachers: Configs of the teachers.
        width, hidden: See :func:`classifier`.
        **kwargs: Further options of ``KnowledgeFlowBackbone``.
    """
    model = classifier(width, hidden)
    return dict(
        model,
        backbone=dict(
            type='mmkd_rl.KnowledgeFlowBackbone',
            student=model['backbone'],
            teachers=teachers,
            **{'probe_size': 4, **kwargs}))
