"""Chooses the views of a :class:`RepeatableViews`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_world_size
from torch.utils.data import Sampler

from mmkd_rl.options import Checked, ConfigError, Count
from mmkd_rl.registry import DATA_SAMPLERS

from .repeatable_views import RepeatableViews

_DEFAULT: dict = dict(type='DefaultSampler', shuffle=True)


@DATA_SAMPLERS.register_module()
class ViewSampler(Checked, Sampler):
    """Takes images from another sampler and adds the number of the view.

    In epoch e the view is e modulo K, so that an image comes with each of its
    K views before one is repeated.

    Args:
        dataset: The data set.
        sampler: Config of the sampler of images.
        seed: Its seed; given by MMEngine's runner.
        repeats: R: each image comes R times in a row, with R views. An epoch
            then has every R-th of the sampler's images, so that it is as
            long; images of one batch share the decoding (Shen & Xing, A Fast
            Knowledge Distillation Framework, ECCV 2022, Sec. 3.2).

    Raises:
        ConfigError: The data set is no :class:`RepeatableViews`, or has fewer
            than R views.
    """

    def __init__(self, dataset: Any, sampler: dict = _DEFAULT,
                 seed: int | None = None, repeats: Count = 1) -> None:
        if not isinstance(dataset, RepeatableViews):
            raise ConfigError(
                'train_dataloader.sampler', 'ViewSampler needs dataset=dict('
                "type='mmkd_rl.RepeatableViews', views=..., dataset=...), got "
                f'{type(dataset).__name__}')
        if repeats > dataset.views:
            raise ConfigError(
                'train_dataloader.sampler.repeats', f'must be at most the '
                f'number of views, {dataset.views}, got {repeats}')
        self.dataset, self.repeats = dataset, repeats
        self.sampler = DATA_SAMPLERS.build(
            sampler, default_args=dict(dataset=dataset, seed=seed))
        self.epoch = 0
        self._skipped = 0
        if repeats == 1 and hasattr(self.sampler, 'skip'):
            # MMEngine skips batches so, where a run is resumed.
            self.skip = self._skip

    def _skip(self, count: int) -> None:
        self.sampler.skip(count)
        self._skipped = count

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; MMEngine's runner does."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        images, views = len(self.dataset), self.dataset.views
        # Of samplers without end, an epoch is one pass over the images.
        one_pass = math.ceil(images / get_world_size())
        if self.repeats == 1:
            for place, image in enumerate(self.sampler, self._skipped):
                view = (self.epoch + place // one_pass) % views
                yield view * images + image
            return
        endless = 'Infinite' in type(self.sampler).__name__
        chosen = iter(self.sampler) if endless else itertools.islice(
            self.sampler, math.ceil(len(self) / self.repeats))
        left = math.inf if endless else len(self)
        for place, image in enumerate(chosen):
            first = self.epoch + place * self.repeats // one_pass
            for r in range(int(min(self.repeats, left))):
                yield (first * self.repeats + r) % views * images + image
            left -= self.repeats
