"""Scikit-learn's handwritten digits, rendered as small colour images.

`sklearn.datasets.load_digits` ships 1,797 real scans (8x8 pixels, Alpaydin
and Kaynak 1998) inside the package, so nothing is downloaded. Each scan is
rendered several times by :mod:`mmkd_rl.datasets.rendering`. Whole *scans* are
held out for testing: no scan has a rendering in both splits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from mmpretrain.datasets import BaseDataset
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mmkd_rl.options import BelowOne, Checked, ConfigError, Count, Natural
from mmkd_rl.registry import DATASETS

from .rendering import render_digit

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven',
           'eight', 'nine')
Split = Literal['train', 'test']
SPLITS = get_args(Split)
TEST_FRACTION = 1 / 3


@lru_cache(maxsize=4)
def load_scans(split: Split,
               split_seed: int = 0
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scans of one split, stratified by class.

    Args:
        split: ``'train'`` (1,198 scans) or ``'test'`` (599).
        split_seed: Seed of the split. Separate from the seed of the
            renderings, so that data sets with different renderings have the
            same split.

    Returns:
        Indices into ``load_digits`` [N], scans [N, 8, 8] float32 in [0, 1]
        and labels [N]. Do not write to them: they are cached.
    """
    digits = load_digits()
    parts = train_test_split(
        np.arange(len(digits.target)),
        test_size=TEST_FRACTION,
        random_state=split_seed,
        stratify=digits.target)
    chosen = np.sort(parts[SPLITS.index(split)])
    scans = (digits.images[chosen] / 16.).astype(np.float32)
    return chosen, scans, digits.target[chosen]


def corrupt_labels(labels: np.ndarray, fraction: float,
                   seed: int) -> np.ndarray:
    """Replace a fraction of labels by another class, drawn uniformly.

    Args:
        labels: [N] class indices.
        fraction: In [0, 1); exactly ``round(fraction * N)`` labels change.
        seed: Seed of the choice of labels and classes.

    Returns:
        A new array [N].
    """
    rng = np.random.default_rng((seed, 0))
    labels = labels.copy()
    wrong = rng.permutation(len(labels))[:round(fraction * len(labels))]
    # A shift by 1..9 modulo 10 never gives the right class back.
    labels[wrong] += rng.integers(1, len(CLASSES), len(wrong))
    labels[wrong] %= len(CLASSES)
    return labels


@DATASETS.register_module()
class DigitsDataset(Checked, BaseDataset):
    """Renderings of handwritten digits, 32x32 pixels, 10 classes.

    All images are rendered when the data set is built (about 0.3 ms each)
    and kept in memory; a sample's dict has ``img`` ([32, 32, 3] uint8, BGR),
    ``gt_label`` and ``original`` (the index of its scan in ``load_digits``).
    A pipeline therefore needs no loading step.

    Args:
        split: ``'train'`` or ``'test'``.
        renderings: Images per scan.
        seed: Seed of the renderings. A rendering depends only on this seed,
            its scan and its number, so the first images of a scan are the same
            for any ``renderings``.
        label_noise: Fraction of the scans, in [0, 1), with a wrong label (the
            same in all their renderings); for training only.
        split_seed: Seed of the split into training and test scans.
        **kwargs: Further arguments of
            :class:`mmpretrain.datasets.BaseDataset`, such as ``pipeline``.

    Raises:
        ConfigError: Label noise in the test split.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(self,
                 split: Split,
                 renderings: Count = 1,
                 seed: Natural = 0,
                 label_noise: BelowOne = 0.,
                 split_seed: Natural = 0,
                 **kwargs: Any) -> None:
        if label_noise and split != 'train':
            raise ConfigError(
                'DigitsDataset.label_noise', f'{label_noise!r} is for '
                'split="train" only: accuracy is measured against true labels')
        self.split = split
        self.renderings = renderings
        self.seed = seed
        self.label_noise = label_noise
        self.split_seed = split_seed
        kwargs.setdefault('test_mode', split == 'test')
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Render every image; renderings of one scan follow each other."""
        originals, scans, labels = load_scans(self.split, self.split_seed)
        labels = corrupt_labels(labels, self.label_noise, self.seed)
        data = []
        for original, scan, label in zip(
                originals.tolist(), scans, labels.tolist(), strict=True):
            for number in range(self.renderings):
                rng = np.random.default_rng((self.seed, original, number))
                data.append(
                    dict(
                        img=render_digit(scan, rng, scans),
                        gt_label=label,
                        original=original))
        return data

    def extra_repr(self) -> list[str]:
        """Lines that ``print(dataset)`` adds."""
        lines = super().extra_repr()
        lines.append(f'Split: \t{self.split}')
        lines.append(f'Renderings per scan: \t{self.renderings}')
        lines.append(f'Label noise: \t{self.label_noise}')
        return lines
