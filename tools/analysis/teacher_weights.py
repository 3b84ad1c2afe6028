"""The weights of a distillation's teachers on single images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate

from analysis.trained_models import (
    Run,
    build_data,
    is_distilled,
    open_distilled,
)
from mmkd_rl.records import Batch, TeacherWeights
from mmkd_rl.utils.configs import class_name


def teacher_weights(run: Run, indices: Sequence[int]) -> list[str]:
    """The weights of a distillation's teachers on validation images, in words;
    empty for a model without teachers.

    Args:
        run: The model.
        indices: Numbers of the images.

    Raises:
        ValueError, FileNotFoundError: See :func:`open_distilled`.
    """
    if not is_distilled(run):
        return [''] * len(indices)
    model: Any = open_distilled(run)
    dataset = build_data(run, pipeline=annotations_first(
        run.cfg.val_dataloader.dataset.pipeline))
    words = []
    for index in indices:
        data = model.data_preprocessor(pseudo_collate([dataset[index]]), False)
        pad_labels(data['data_samples'], data['inputs'].shape[2:])
        words.append(_in_words(model.distillation, model.distillation.weigh(
            model, Batch(data['inputs'], data['data_samples']))))
    return words


def annotations_first(pipeline: Sequence[dict]) -> list[dict]:
    """A pipeline that reads annotations before images are resized, as those
    of training do."""
    first = ['LoadImageFromFile', 'LoadAnnotations']
    kinds = [class_name(step['type']) for step in pipeline]
    return [step for kind in first
            for step, own in zip(pipeline, kinds) if own == kind] + [
        step for step, own in zip(pipeline, kinds) if own not in first]


def _in_words(distillation: Any, weights: TeacherWeights) -> str:
    """Weights of the teachers on one image, a line for logits and one for
    features, of those that are distilled."""
    lines = []
    for kind, (weights_M, ) in (('logits', weights.logit),
                                ('features', weights.feature)):
        if kind in distillation.kinds:
            # Strategies differ in the sum of their weights.
            shares = (weights_M / weights_M.sum()).tolist()
            text = ', '.join(f'{name} {share:.0%}' for name, share in zip(
                distillation.teacher_names, shares))
            lines.append(text if len(distillation.kinds) == 1 else
                         f'{kind}: {text}')
    return '\n'.join(lines)


def pad_labels(samples: Sequence[Any], size: Sequence[int]) -> None:
    """Give label maps the size of padded images, which MMSegmentation's
    preprocessor does in training only."""
    for sample in samples:
        label = getattr(sample, 'gt_sem_seg', None)
        if label is None:
            continue
        rows, columns = (n - m for n, m in zip(size, label.data.shape[-2:]))
        # No class: as if it were ignored.
        sample.gt_sem_seg = type(label)(data=torch.nn.functional.pad(
            label.data.long(), (0, columns, 0, rows), value=-1))
