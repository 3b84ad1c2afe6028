"""Opens the stores of teachers for the data of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from mmkd_rl.datasets import RepeatableViews, ViewSampler
from mmkd_rl.distillers import Distillation
from mmkd_rl.options import ConfigError
from mmkd_rl.teachers import Normalization, StoredViews

_HOW = ("use train_dataloader.dataset=dict(type='mmkd_rl.RepeatableViews', "
        'views=..., dataset=...) and sampler=dict(type='
        "'mmkd_rl.ViewSampler'), or --distill with --stored FOLDER, which "
        'writes both')


#: Hooks of MMPretrain and MMDetection that change a training's images.
_SWITCHES = {'SwitchRecipeHook', 'PipelineSwitchHook', 'YOLOXModeSwitchHook'}
#: Options of preprocessors with which they pad.
_PADS = ('size', 'size_divisor', 'pad_size_divisor')


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
    if type(data).__name__ == '_SlicedDataset':
        raise ConfigError(
            'train_dataloader.num_batch_per_epoch', 'cannot be used with '
            'stored outputs; use RepeatableViews of a smaller data set '
            '(dataset.indices)')
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
    check_mixing(model)
    views = StoredViews.of(data, _padding(model))
    views.check(data)
    distillation.teachers.begin(views)


def check_mixing(model: nn.Module) -> None:
    """Raise ConfigError where the preprocessor mixes images."""
    if getattr(getattr(model, 'data_preprocessor', None), 'batch_augments',
               None) is not None:
        raise ConfigError(
            'model.data_preprocessor.batch_augments', 'changes images behind '
            "the pipeline (mixup, CutMix, ...), and a teacher's output for "
            'a mixed image is not a mixture of stored ones; leave it out '
            '(train_cfg.augments of MMPretrain), or do not store outputs')


def check_hooks(hooks: Iterable[Any]) -> None:
    """Raise ConfigError where a hook will change the images in training."""
    for hook in hooks:
        name = type(hook).__name__
        if name in _SWITCHES:
            raise ConfigError(
                'custom_hooks', f'{name} switches the pipeline or the mixing '
                'of images in training, and each would need a store of its '
                'own; leave it out, or do not store outputs')


def _padding(model: nn.Module) -> str:
    """How the preprocessor pads images, which is in the student's
    normalisation; empty: it does not."""
    own = getattr(model, 'data_preprocessor', None)
    pads = {name: str(getattr(own, name)) for name in _PADS
            if getattr(own, name, None) not in (None, 1)}
    return f'{pads}, {Normalization.of(own)}' if pads else ''
