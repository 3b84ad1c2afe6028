"""A data set whose augmentations can be repeated.

Outputs of teachers can be stored only for images that come again, pixel by
pixel. This wrapper gives each image a fixed number of views: all random
numbers of the pipeline come from generators that are seeded by image and view.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose

from mmkd_rl.options import Checked, ConfigError, Count, Natural
from mmkd_rl.records import VIEW_KEY, ViewKey
from mmkd_rl.registry import DATASETS
from mmkd_rl.utils import random_state


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
        seed: Views of another seed are other views.

    Raises:
        ConfigError: ``dataset`` is none, or has no pipeline.
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
        _decode_once(dataset)

    def __getattr__(self, name: str) -> Any:
        """What samplers and hooks ask a data set for: ``get_gt_labels``,
        ``get_cat2imgs``, ...; but no parts of it, which would have other
        indices."""
        if name.startswith('__') or name in ('dataset', 'get_subset',
                                             'get_subset_'):
            raise AttributeError(
                f'{type(self).__name__!r} object has no attribute {name!r}')
        return getattr(self.dataset, name)

    @property
    def metainfo(self) -> dict:
        """Metadata of the data set."""
        return self.dataset.metainfo

    @property
    def CLASSES(self) -> Any:
        """Names of the classes, as MMPretrain's data sets give them."""
        return getattr(self.dataset, 'CLASSES', None)

    @property
    def pipeline(self) -> Any:
        """The data set's pipeline. It cannot be set: other images would need
        other views, and so a store of their own.

        Raises:
            ConfigError: It is set, as MMDetection's ``PipelineSwitchHook``
                does.
        """
        return getattr(self.dataset, 'pipeline', None)

    @pipeline.setter
    def pipeline(self, value: Any) -> None:
        raise ConfigError(
            'train_dataloader.dataset', 'the pipeline of RepeatableViews '
            'cannot be changed in training; leave out the hook that switches '
            'it (PipelineSwitchHook), or do not store outputs')

    def full_init(self) -> None:
        """Load the data set, if that was put off."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

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


def _decode_once(dataset: Any) -> None:
    """Let views of an image that follow each other share its decoding."""
    pipeline = getattr(dataset, 'pipeline', None)
    steps = getattr(pipeline, 'transforms', None)
    if isinstance(pipeline, Compose) and steps and type(
            steps[0]).__name__ == 'LoadImageFromFile':
        steps[0] = _LastImage(steps[0])


class _LastImage:
    """A transform that reads an image, and remembers the last one.

    Args:
        load: The transform.
    """

    def __init__(self, load: Callable[[dict], dict | None]) -> None:
        self._load = load
        self._path: str | None = None
        self._read: dict | None = None

    def __call__(self, results: dict) -> dict | None:
        """See the class; the image is a copy."""
        path = results.get('img_path')
        if path is None:
            return self._load(results)
        if path != self._path or self._read is None:
            before = dict(results)
            loaded = self._load(results)
            if loaded is None:
                return None
            self._path, self._read = path, {
                k: v for k, v in loaded.items()
                if k not in before or v is not before[k]}
        return {**results, **{
            k: v.copy() if isinstance(v, np.ndarray) else v
            for k, v in self._read.items()}}

    def __repr__(self) -> str:
        return repr(self._load)
