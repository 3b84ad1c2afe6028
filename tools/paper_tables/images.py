"""Changes of a config's data sets: image folders and permuted labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

from mmkd_rl.utils.configs import class_name


def folders(cfg: Config) -> list[str]:
    """Image folders of the training and validation data."""
    found = []
    for key in ('train_dataloader', 'val_dataloader'):
        for dataset in datasets(cfg[key].dataset):
            if 'data_root' in dataset:
                found.append(str(dataset.data_root))
    return list(dict.fromkeys(found))


def move(cfg: Config, root: str) -> None:
    """Replace the config's ``data_root`` by ``root`` in all paths, in place.

    Args:
        cfg: Config; unchanged if it has no ``data_root``.
        root: New folder of the images.
    """
    old = cfg.get('data_root')
    if not old:
        return
    old, new = str(old).rstrip('/'), root.rstrip('/')

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = moved(value[key])
            return value
        if isinstance(value, list):
            return [moved(item) for item in value]
        if isinstance(value, str) and (value == old
                                       or value.startswith(old + '/')):
            return new + value[len(old):]
        return value

    for key in ('data_root', 'train_dataloader', 'val_dataloader',
                'test_dataloader', 'val_evaluator', 'test_evaluator',
                'custom_hooks'):
        if key in cfg:
            cfg[key] = moved(cfg[key])


def permute_labels(cfg: Config, classes: int) -> None:
    """Permute the classes in a teacher's training data, in place.

    Args:
        cfg: Config of the teacher's training.
        classes: Number of classes.

    Raises:
        ValueError: The training pipeline has no PackInputs.
    """
    for dataset in datasets(cfg.train_dataloader.dataset):
        steps = list(dataset.get('pipeline') or [])
        at = [i for i, step in enumerate(steps)
              if class_name(step.type) == 'PackInputs']
        if not at:
            continue
        steps.insert(at[-1], ConfigDict(
            type='mmkd_rl.PermuteLabels', num_classes=classes, seed=0))
        dataset.pipeline = steps
        return
    raise ValueError('--spoil needs a training pipeline with PackInputs, '
                     'and this teacher has none')


def datasets(dataset: Any) -> Iterator[Any]:
    """Config of a data set, and of all data sets that it wraps."""
    yield dataset
    for inner in (dataset.get('dataset'), *dataset.get('datasets', ())):
        if inner is not None:
            yield from datasets(inner)
