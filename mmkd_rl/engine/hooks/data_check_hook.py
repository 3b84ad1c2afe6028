"""Check the training data while they are read: labels, numbers, ranges.

The checks are made on the CPU before a batch goes to the device. Without them
a wrong label ends in an index error of the loss, and an empty epoch in a
student that was never trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.flow import KnowledgeFlow
from mmkd_rl.options import Checked, ConfigError
from mmkd_rl.registry import HOOKS
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.pipelines import pipeline_normalization

#: Pixels beyond this are not of images with 8 bits.
_LARGEST = 255.


@HOOKS.register_module()
class DataCheckHook(Checked, Hook):
    """Checks that there are batches, that labels are classes of the model,
    and that images are on the scale of 0 to 255; and tells teachers of a
    normalisation in the pipeline.

    ``tools/train.py`` registers it.

    Raises:
        ConfigError: There is no batch in an epoch; an image has no label, or
            one beyond the classes.
    """

    # Before other hooks read the batch.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._pipeline: Normalization | None = None
        self._classes: int | None = None
        self._ignored: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Check the number of batches, and look at the pipeline."""
        self.look_at(unwrapped(runner), runner.train_loop.dataloader)
        for name in ('val', 'test'):
            loop = getattr(runner, f'_{name}_loop')
            check_classes(
                classes_of(runner.train_loop.dataloader),
                classes_of(getattr(loop, 'dataloader', None)),
                f'{name}_dataloader.dataset', 'the training data')
        if not runner.train_loop.max_iters:
            raise ConfigError('train_cfg', 'max_epochs or max_iters is 0, '
                              'which leaves nothing to train')

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Check the labels of the first epoch's batches, and the range of the
        first batch's images."""
        if runner.iter < len(runner.train_loop.dataloader):
            self.check(runner, data_batch, first=runner.iter == 0)

    def look_at(self, model: nn.Module, loader: DataLoader) -> None:
        """Check the number of batches; see what labels are right, and what
        the pipeline does.

        Args:
            model: The student's model.
            loader: Data loader of the training.

        Raises:
            ConfigError: There is no batch, or the labels' form is not the
                loss'.
        """
        if not len(loader):
            raise ConfigError(
                'train_dataloader', 'an epoch has no batch: '
                f'{len(loader.dataset)} images are fewer than a batch of '  # type: ignore[arg-type]
                f'{loader.batch_size}, and drop_last is set; use a smaller '
                'batch_size or drop_last=False')
        _check_form(model)
        self._classes = _number_of_classes(model)
        self._ignored = getattr(_head(model), 'ignore_index', None)
        self._pipeline = pipeline_normalization(loader.dataset)
        if self._pipeline is not None:
            self._adapt(model, self._pipeline)

    def check(self, runner: Runner, batch: Any, first: bool) -> None:
        """Check a batch, before the preprocessor.

        Args:
            runner: The runner, for its logger.
            batch: A batch of the data loader.
            first: Whether it is the first one, whose range is checked.

        Raises:
            ConfigError: See the class.
        """
        if not isinstance(batch, Mapping):
            return
        if self._classes is not None:
            check_labels(batch.get('data_samples') or (), self._classes,
                         self._ignored)
        if first:
            self._check_range(runner, batch.get('inputs'))

    def _adapt(self, model: nn.Module, pipeline: Normalization) -> None:
        """Set the normalisation of the images that teachers are given."""
        own = Normalization.of(getattr(model, 'data_preprocessor', None))
        both = pipeline if own is None else pipeline.then(own)
        distillation = distillation_of(model)
        if distillation is not None:
            distillation.teachers.adapt(both)
        for module in model.modules():
            if isinstance(module, KnowledgeFlow):
                module.set_normalization(both)

    def _check_range(self, runner: Runner, inputs: Any) -> None:
        images = inputs if isinstance(inputs, Tensor) else (
            inputs[0] if isinstance(inputs, Sequence) and inputs and
            isinstance(inputs[0], Tensor) else None)
        if images is None or images.dtype == torch.uint8:
            return
        # PyTorch has no minimum of 16 bits without a sign.
        low, high = (float(v) for v in images.float().aminmax())
        if self._pipeline is not None:
            mean, std = self._pipeline.mean, self._pipeline.std
            low = low * min(std) + min(mean)
            high = high * max(std) + max(mean)
            wrong = low < -_LARGEST or high > 3 * _LARGEST
        else:
            wrong = high > 1.2 * _LARGEST or high <= 2 or low < -1
        if wrong:
            runner.logger.warning(
                f'the first images have values from {low:.4g} to {high:.4g}, '
                'and not from 0 to 255. Teachers get them by the '
                "preprocessors' mean and std, so one that was trained on "
                'another scale sees nonsense. Images of 16 bits, or divided '
                'by 255, need preprocessors for their scale, also in the '
                "teachers' configs")


def check_labels(samples: Sequence[Any], classes: int,
                 ignored: int | None = None) -> None:
    """Check the labels of classifiers' and segmentors' data samples.

    Args:
        samples: Data samples, before the preprocessor.
        classes: Number of the model's classes.
        ignored: Label of pixels without a class.

    Raises:
        ConfigError: An image has no label, or one beyond the classes; the
            message names the first such image.
    """
    for sample in samples:
        if 'gt_sem_seg' in sample:
            labels = sample.gt_sem_seg.data
            if ignored is not None:
                labels = labels[labels != ignored]
        elif 'gt_label' in sample:
            labels = sample.gt_label
        elif 'gt_score' in sample or 'gt_instances' in sample:
            continue
        else:
            raise ConfigError(
                'train_dataloader.dataset', f'{_name(sample)} has no label')
        if not isinstance(labels, Tensor) or not labels.numel():
            continue
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ConfigError(
                'train_dataloader.dataset',
                f'{_name(sample)} has the label {low if low < 0 else high}, '
                f'and the model has {classes} classes (labels 0 to '
                f'{classes - 1}); mend the annotations or num_classes')


def classes_of(loader: Any) -> Sequence[str] | None:
    """Names of the classes of a loader's data set; ``None``: not known."""
    facts = getattr(getattr(loader, 'dataset', None), 'metainfo', None)
    names = facts.get('classes') if isinstance(facts, Mapping) else None
    return names if isinstance(names, (list, tuple)) else None


def check_classes(own: Sequence[str] | None, other: Sequence[str] | None,
                  key: str, whose: str) -> None:
    """Compare the names of classes of two data sets.

    Args:
        own: Those that the model has learned; ``None``: not known.
        other: Those of the data on which it is validated or tested.
        key: Config key of these data.
        whose: What ``own`` are the classes of, for the message.

    Raises:
        ConfigError: A class has another index.
    """
    if own is None or other is None:
        return
    places = {name: i for i, name in reversed(list(enumerate(own)))}
    moved = [n for i, n in enumerate(other)
             if n in places and places[n] != i and (
                 i >= len(own) or own[i] != n)]
    if moved:
        raise ConfigError(
            key, f'its classes are {_some(other)}, and those of {whose} '
            f'{_some(own)}: {moved[0]!r} has another index, so that right '
            'answers would count as wrong. A folder of a class may be '
            'missing or empty; name all classes with metainfo='
            f'dict(classes={list(own)[:3]!r}{"..." if len(own) > 3 else ""})')


def _some(names: Sequence[str]) -> str:
    return f'{list(names[:5])}' + (' and others' if len(names) > 5 else '')


def _check_form(model: nn.Module) -> None:
    """Raise ConfigError where labels become vectors for a loss that takes
    indices."""
    loss = getattr(_head(model), 'loss_module', None)
    if getattr(getattr(model, 'data_preprocessor', None), 'to_onehot',
               False) and type(loss).__name__ == 'CrossEntropyLoss' and not (
                   getattr(loss, 'use_soft', False) or
                   getattr(loss, 'use_sigmoid', False)):
        raise ConfigError(
            'data_preprocessor', 'to_onehot=True makes labels vectors, and '
            "the head's CrossEntropyLoss takes indices; leave it out, or set "
            'use_soft=True in the loss')


def _name(sample: Any) -> str:
    path = getattr(sample, 'img_path', None)
    return f'the image {path!r}' if path else 'an image'


def _number_of_classes(model: nn.Module) -> int | None:
    """Number of classes of a classifier or a segmentor whose labels are class
    indices; ``None`` for others."""
    count = getattr(_head(model), 'num_classes', None)
    if isinstance(count, int) and count > 0:
        return count if count > 1 else 2
    distillation = distillation_of(model)
    if distillation is None or distillation.task.judge is None or \
            distillation.task.scope != 'mmpretrain':
        return None
    return distillation.weighting.context.student.num_classes or None


def _head(model: nn.Module) -> Any:
    head: Any = getattr(model, 'decode_head', getattr(model, 'head', None))
    return head[-1] if isinstance(head, nn.ModuleList) else head
