"""A data set whose augmentations can be repeated.

Outputs of teachers can be stored only for images that come again, pixel by
pixel. This wrapper gives each image a fixed number of views: all random
numbers of the pipeline come from generators that are seeded by image and view.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch

from mmkd_rl.options import Checked, ConfigError, Count, Natural
from mmkd_rl.records import VIEW_KEY, ViewKey
from mmkd_rl.registry import DATASETS
from mmkd_rl.utils import random_state

from .last_image import decode_once


@DATASETS.register_module()
class RepeatableViews(Checked):
    """Gives each image of a data set ``views`` fixed augmented views.

    The view is a part of the index: ``data[view * N + i]`` is a view of image
    i of N. The length stays N, so that an epoch stays an epoch; a
    :class:`ViewSampler` chooses another view in each. The :class:`ViewKey` of
    a view is in its data sample, ``data_samples.view_key``.

    Args:
        dataset: The data set, or its config. Its pipeline may have any
            transform that draws from the generators of Python, NumPy or
            PyTorch.
        views: K, the number of views.
        seed: Seed of all views.

    Raises:
        ConfigError: ``dataset`` is no data set.
    """

    def __init__(self, dataset: Any, views: Count = 1,
                 seed: Natural = 0) -> None:
        #: Config of the data set, if it is known.
        self.config = dataset if isinstance(dataset, dict) else None
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        if not hasattr(dataset, '__getitem__'):
            raise ConfigError('RepeatableViews.dataset', 'must be a data set '
                              f'or its config, got {type(dataset).__name__}')
        self.dataset, self.views, self.seed = dataset, views, seed
        decode_once(dataset)

    def __getattr__(self, name: str) -> Any:
        """Attributes of the data set: ``metainfo``, ``full_init``,
        ``get_gt_labels``, ...; not ``get_subset``, because the indices of a
        subset are others."""
        if name.startswith('__') or name in ('dataset', 'get_subset',
                                             'get_subset_'):
            raise AttributeError(
                f'{type(self).__name__!r} object has no attribute {name!r}')
        return getattr(self.dataset, name)

    @property
    def pipeline(self) -> Any:
        """The data set's pipeline. It cannot be set: other images would need
        other views, and so a store of their own.

        Raises:
            ConfigError: The pipeline is set, as MMDetection's
                ``PipelineSwitchHook`` does.
        """
        return getattr(self.dataset, 'pipeline', None)

    @pipeline.setter
    def pipeline(self, value: Any) -> None:
        raise ConfigError(
            'train_dataloader.dataset', 'the pipeline of RepeatableViews '
            'cannot be changed in training; leave out the hook that switches '
            'it (PipelineSwitchHook), or do not store outputs')

    def get_data_info(self, index: int) -> dict:
        """A sample before its pipeline, of any of its views."""
        return self.dataset.get_data_info(index % len(self))

    def get_cat_ids(self, index: int) -> list[int]:
        """Classes of a sample, of any of its views."""
        return self.dataset.get_cat_ids(index % len(self))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        """A view.

        Raises:
            ConfigError: There is no such view, or the pipeline gives no image
                as one tensor with a data sample.
        """
        view, image = divmod(int(index), len(self))
        if not 0 <= view < self.views:
            raise ConfigError(
                'RepeatableViews', f'has {self.views} views of {len(self)} '
                f'images, and {index} is the index of view {view}')
        with random_state.seeded(self.seed, image, view):
            results = self.dataset[image]
        pixels, sample = (results.get(name) if isinstance(results, dict)
                          else None for name in ('inputs', 'data_samples'))
        if not isinstance(pixels, torch.Tensor) or not hasattr(
                sample, 'set_metainfo'):
            raise ConfigError(
                'RepeatableViews.dataset', 'its pipeline must end with '
                'PackInputs or as good: dict(inputs=Tensor, data_samples=...)')
        checksum = zlib.crc32(pixels.contiguous().numpy().data)
        # set_metainfo would copy the key, which takes longer than the rest.
        sample.set_field(ViewKey(image, view, checksum), VIEW_KEY,
                         field_type='metainfo')
        return results
