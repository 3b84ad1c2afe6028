"""Data set with some classes of another data set.

For Knowledge Flow's experiments (ICLR 2019, Sec. 7.1): half of EMNIST's
letters, MNIST without the digit 3, one half of CIFAR-100's classes.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

from mmkd_rl.registry import DATASETS

from .map_labels import MapLabels

HALVES = ('first-half', 'second-half')


@DATASETS.register_module()
class ClassSubset:
    """The samples of some classes, renumbered from 0 in the order given.

    Args:
        dataset: A classification data set or its config, with class names
            (``metainfo['classes']``); its pipeline gets the new labels.
        classes: Names or numbers of the classes to keep, or
            ``'first-half'`` or ``'second-half'`` (of an odd number of
            classes the second half has one more).
        without: The classes to leave out, instead of ``classes``; the others
            keep their order.
        relabel: ``False``: keep labels and class names, for a training set
            that lacks classes of the test set.
        lazy_init: Choose the samples in :meth:`full_init`, not here.

    Raises:
        TypeError: ``dataset`` is neither a data set nor a config, or has no
            subsets.
        ValueError: Both or neither of ``classes`` and ``without`` are given, a
            class is unknown or given twice, no class or no sample is left,
            there are no class names, or samples have several classes.

    Example:
        >>> from mmkd_rl.datasets import ClassSubset
        >>> digits = dict(type='mmkd_rl.DigitsDataset', split='test')
        >>> odd = ClassSubset(digits, ['one', 3, 'five', 'seven', 9])
        >>> odd.metainfo['classes']
        ('one', 'three', 'five', 'seven', 'nine')
    """

    def __init__(self,
                 dataset: BaseDataset | dict,
                 classes: Sequence[str | int] | str | None = None,
                 without: Sequence[str | int] | None = None,
                 relabel: bool = True,
                 lazy_init: bool = False) -> None:
        if (classes is None) == (without is None):
            raise ValueError(
                'ClassSubset needs classes (those to keep) or without (those '
                f'to leave out), got classes={classes!r} and '
                f'without={without!r}')
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        if not isinstance(dataset, BaseDataset):
            raise TypeError(
                'ClassSubset.dataset must be a data set derived from '
                "mmengine's BaseDataset, or its config, got "
                f'{type(dataset).__name__}; if you use a wrapper '
                '(RepeatDataset, ...), put the ClassSubset inside it')
        self.dataset = dataset
        self.classes = classes
        self.without = without
        self.relabel = relabel
        self._metainfo = dataset.metainfo
        self._fully_initialized = False
        if 'classes' in self._metainfo:
            # Wrong names are reported before anything is loaded.
            self._choose()
        if not lazy_init:
            self.full_init()

    def _choose(self) -> list[int]:
        """The old labels of the classes to keep, in their new order."""
        self._metainfo = self.dataset.metainfo
        names = self._metainfo.get('classes')
        if not names:
            raise ValueError(
                f'ClassSubset: {type(self.dataset).__name__} has no class '
                'names; give it metainfo=dict(classes=[...])')
        if isinstance(self.classes, str):
            if self.classes not in HALVES:
                raise ValueError('ClassSubset.classes must be a list of '
                                 f'classes or one of {HALVES}, got '
                                 f'{self.classes!r}')
            half = len(names) // 2
            kept = list(range(len(names)))
            kept = kept[:half] if self.classes == HALVES[0] else kept[half:]
        elif self.classes is not None:
            kept = _numbers('classes', self.classes, names)
        else:
            out = _numbers('without', self.without, names)
            kept = [i for i in range(len(names)) if i not in out]
        if not kept:
            raise ValueError('ClassSubset keeps none of the '
                             f'{len(names)} classes')
        if self.relabel:
            self._metainfo['classes'] = tuple(names[i] for i in kept)
        return kept

    def full_init(self) -> None:
        """Load the data set and choose the samples."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        kept = self._choose()
        self._relabel = MapLabels({
            old: new if self.relabel else old
            for new, old in enumerate(kept)
        })
        chosen = []
        for i in range(len(self.dataset)):
            labels = self.dataset.get_cat_ids(i)
            if len(labels) != 1:
                raise ValueError(
                    f'ClassSubset: sample {i} of '
                    f'{type(self.dataset).__name__} has the classes {labels}, '
                    'and one is needed')
            if labels[0] in self._relabel.mapping:
                chosen.append(i)
        if not chosen:
            raise ValueError(
                f'ClassSubset: none of the {len(self.dataset)} samples of '
                f'{type(self.dataset).__name__} is of the classes {kept}')
        # A copy: the data set that came may be in use elsewhere.
        self.dataset = self.dataset.get_subset(chosen)
        self.dataset.pipeline.transforms.insert(0, self._relabel)
        self._chosen = np.array(chosen)
        self._fully_initialized = True

    @property
    def metainfo(self) -> dict:
        """Metadata of the data set; ``classes`` are those of the labels."""
        return copy.deepcopy(self._metainfo)

    @property
    def CLASSES(self) -> tuple[str, ...] | None:
        """Names of the classes, as MMPretrain's data sets give them."""
        return self._metainfo.get('classes')

    @force_full_init
    def get_subset(self, indices: int | Sequence[int]) -> ClassSubset:
        """Some of the samples, see ``BaseDataset.get_subset``; used by
        MMPretrain's ``KFoldDataset``."""
        subset = copy.copy(self)
        subset.dataset = self.dataset.get_subset(indices)
        # As in BaseDataset: a number means the first n samples, or the last.
        which = list(indices) if not isinstance(indices, int) else slice(
            indices) if indices >= 0 else slice(indices, None)
        subset._chosen = self._chosen[which]
        return subset

    @force_full_init
    def get_ori_index(self, idx: int) -> int:
        """Number of a sample in the whole data set."""
        return int(self._chosen[idx])

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """A sample before its pipeline, with its new label."""
        return self._relabel(self.dataset.get_data_info(idx))

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """The new label of a sample, in a list."""
        return [self._relabel.mapping[self.dataset.get_cat_ids(idx)[0]]]

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """The new labels of all samples, [N]."""
        return np.array([self.get_cat_ids(i)[0] for i in range(len(self))])

    @force_full_init
    def __len__(self) -> int:
        return len(self.dataset)

    @force_full_init
    def __getitem__(self, idx: int) -> dict:
        return self.dataset[idx]

    def __repr__(self) -> str:
        size = len(self) if self._fully_initialized else 'not loaded'
        return (f'ClassSubset of {type(self.dataset).__name__}\n'
                f'    Number of samples: \t{size}\n'
                f'    Classes: \t{self.CLASSES}\n'
                f'    Renumbered: \t{self.relabel}')


def _numbers(key: str, chosen: Sequence[str | int] | None,
             names: Sequence[str]) -> list[int]:
    """Numbers of classes given by name or number."""
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) \
            or not chosen:
        raise ValueError(f'ClassSubset.{key} must be a list of class names '
                         f'or numbers, got {chosen!r}')
    numbers: list[int] = []
    for item in chosen:
        if isinstance(item, str) and item in names:
            number = list(names).index(item)
        elif isinstance(item, int) and not isinstance(item, bool) \
                and 0 <= item < len(names):
            number = item
        else:
            near = difflib.get_close_matches(str(item), names, n=3) \
                or list(names[:3])
            raise ValueError(
                f'ClassSubset.{key}: no class {item!r}; classes are names '
                f'(nearest: {near}) or numbers from 0 to {len(names) - 1}')
        if number in numbers:
            raise ValueError(f'ClassSubset.{key}: class {item!r} (number '
                             f'{number}) is there twice')
        numbers.append(number)
    return numbers
