"""Opens the stores of teachers for the data of a training."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkd_rl.datasets import RepeatableViews, ViewSampler
from mmkd_rl.distillers import Distillation
from mmkd_rl.options import ConfigError
from mmkd_rl.teachers import StoredViews

_HOW = ("use train_dataloader.dataset=dict(type='mmkd_rl.RepeatableViews', "
        'views=..., dataset=...) and sampler=dict(type='
        "'mmkd_rl.ViewSampler'), or --distill with --stored FOLDER, which "
        'writes both')


def begin(distillation: Distillation, model: nn.Module, data: Any,
          sampler: Any = None) -> None:
    """Prepare the stores of a distillation's teachers; nothing where no
    outputs are stored.

    Args:
        distillation: The distillation.
        model: The student's model.
        data: The training's data set.
        sampler: Its sampler; ``None``: views are not sampled.

    Raises:
        ConfigError: Images cannot be told apart, are not the same when read
            again, or are mixed after the pipeline.
    """
    if not distillation.teachers.stored:
        return
    if not isinstance(data, RepeatableViews):
        raise ConfigError(
            'train_dataloader.dataset', "teachers with executor='stored' need "
            f'views that can be repeated, and this is a {type(data).__name__}'
            f': {_HOW}')
    if sampler is not None and data.views > 1 and not any(
            isinstance(s, ViewSampler)
            for s in (sampler, getattr(sampler, 'sampler', None))):
        raise ConfigError(
            'train_dataloader.sampler', f'{type(sampler).__name__} takes the '
            f'first of {data.views} views only: {_HOW}')
    mixing = getattr(getattr(model, 'data_preprocessor', None),
                     'batch_augments', None)
    if mixing is not None:
        raise ConfigError(
            'model.data_preprocessor.batch_augments', 'changes images behind '
            "the pipeline (mixup, CutMix, ...), and a teacher's output for "
            'a mixed image is not a mixture of stored ones; leave it out '
            '(train_cfg.augments of MMPretrain), or do not store outputs')
    views = StoredViews.of(data)
    views.check(data)
    distillation.teachers.begin(views)
