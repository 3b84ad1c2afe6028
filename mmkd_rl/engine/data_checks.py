"""Checks of labels and of the names of classes, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor, nn

from mmkd_rl.distillers import distillation_of
from mmkd_rl.options import ConfigError


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


def check_folders(names: Sequence[str] | None) -> None:
    """Raise ConfigError where a hidden folder, such as those that notebooks
    and archives leave behind, was taken for a class."""
    hidden = [n for n in names or () if str(n).startswith(('.', '__MACOSX'))]
    if hidden and names is not None:
        raise ConfigError(
            'train_dataloader.dataset', f'the folder {hidden[0]!r} counts as '
            'a class; remove it, or name the classes with metainfo='
            f'dict(classes={[n for n in names if n not in hidden][:3]!r}...)')


def check_best(saved: Sequence[str], metrics: Mapping[str, Any]) -> None:
    """Raise ConfigError where the best checkpoint is to be kept by a figure
    that the validation does not give.

    Args:
        saved: Values of ``save_best``.
        metrics: What the validation gives.
    """
    missing = [n for n in saved if n != 'auto' and n not in metrics]
    if missing and metrics:
        raise ConfigError(
            'default_hooks.checkpoint.save_best', f'{missing[0]!r} is no '
            f'figure of this validation, which gives {sorted(metrics)}. The '
            'checkpoint of the epoch is saved: mend it and go on with '
            '--resume')


def check_form(model: nn.Module) -> None:
    """Raise ConfigError where labels become vectors for a loss that takes
    indices."""
    loss = getattr(head_of(model), 'loss_module', None)
    if getattr(getattr(model, 'data_preprocessor', None), 'to_onehot',
               False) and type(loss).__name__ == 'CrossEntropyLoss' and not (
                   getattr(loss, 'use_soft', False) or
                   getattr(loss, 'use_sigmoid', False)):
        raise ConfigError(
            'data_preprocessor', 'to_onehot=True makes labels vectors, and '
            "the head's CrossEntropyLoss takes indices; leave it out, or set "
            'use_soft=True in the loss')


def number_of_classes(model: nn.Module) -> int | None:
    """Number of classes of a classifier or a segmentor whose labels are class
    indices; ``None`` for others."""
    count = getattr(head_of(model), 'num_classes', None)
    if isinstance(count, int) and count > 0:
        return count if count > 1 else 2
    distillation = distillation_of(model)
    if distillation is None or distillation.task.judge is None or \
            distillation.task.scope != 'mmpretrain':
        return None
    return distillation.weighting.context.student.num_classes or None


def head_of(model: nn.Module) -> Any:
    """The decode head of a segmentor, of several the last, or the head of a
    classifier; ``None``: there is neither."""
    head: Any = getattr(model, 'decode_head',
                        getattr(model, 'head', None))
    return head[-1] if isinstance(head, nn.ModuleList) else head


def check_length(loop: Any) -> None:
    """Check that a training has a length, and its epochs an end.

    Args:
        loop: MMEngine's training loop.

    Raises:
        ConfigError: There is nothing to train, or no end, or validation is
            due every 0 epochs.
    """
    sampler = type(getattr(loop.dataloader.sampler, 'sampler',
                           loop.dataloader.sampler)).__name__
    if isinstance(loop, EpochBasedTrainLoop) and 'Infinite' in sampler:
        raise ConfigError(
            'train_dataloader.sampler', f'{sampler} has no end, so that the '
            "first epoch would have none; use type='DefaultSampler', or a "
            'loop that counts iterations (train_cfg.by_epoch=False)')
    if not loop.max_iters:
        raise ConfigError('train_cfg', 'max_epochs or max_iters is 0, which '
                          'leaves nothing to train')
    if getattr(loop, 'val_interval', 1) < 1:
        raise ConfigError('train_cfg.val_interval', 'must be at least 1, got '
                          f'{loop.val_interval}; train without validation by '
                          '--no-validate')


def _name(sample: Any) -> str:
    path = getattr(sample, 'img_path', None)
    return f'the image {path!r}' if path else 'an image'


def _some(names: Sequence[str]) -> str:
    return f'{list(names[:5])}' + (' and others' if len(names) > 5 else '')
