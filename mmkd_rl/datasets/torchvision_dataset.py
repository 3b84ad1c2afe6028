"""Torchvision's classification data sets, for MMPretrain's pipelines.

SVHN, EMNIST, STL-10 and others (Knowledge Flow, ICLR 2019, Sec. 4.2 and 7.1)
are read by torchvision and given in the format of MMPretrain's data sets.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torchvision
from mmengine import dist
from mmpretrain.datasets import BaseDataset
from torchvision.datasets import VisionDataset

from mmkd_rl.options import (
    Checked,
    ConfigError,
    option_names,
    unknown_options,
)
from mmkd_rl.registry import DATASETS

# Options that are set here or done by the pipeline.
RESERVED = ('root', 'download', 'transform', 'target_transform', 'transforms')
# Attributes with a data set's labels in torchvision.
LABELS = ('targets', 'labels', '_labels')
MODES = {1: 'L', 3: 'RGB'}
_IDX = ('{name}/raw/train-images-idx3-ubyte, train-labels-idx1-ubyte, '
        't10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, unpacked')
# Files that torchvision reads, relative to its root.
FILES = {
    'MNIST': _IDX,
    'FashionMNIST': _IDX,
    'KMNIST': _IDX,
    'EMNIST': '{name}/raw/emnist-SPLIT-train-images-idx3-ubyte, '
              '...-labels-idx1-ubyte and those of test, unpacked',
    'SVHN': 'train_32x32.mat or test_32x32.mat',
    'STL10': 'stl10_binary/ with all files of stl10_binary.tar.gz (the '
             'unlabeled ones, too)',
    'CIFAR10': 'cifar-10-batches-py/',
    'CIFAR100': 'cifar-100-python/',
}


@DATASETS.register_module()
class TorchVisionDataset(Checked, BaseDataset):
    """A data set of ``torchvision.datasets``, by its name.

    A sample's dict has ``img`` (uint8, [H, W, 3] in **RGB** order as
    in MMPretrain's CIFAR, or [H, W] for grey images) and ``gt_label`` (from
    0). The pipeline needs no loading step, the preprocessor needs
    ``to_rgb=False``. Images are kept by torchvision: in one array in memory
    (SVHN, STL-10, CIFAR, MNIST and similar sets) or on disk until they are
    read.

    EMNIST's images, which are transposed in the files and in torchvision, are
    transposed back; the labels of its letters are 0 to 25 instead of 1 to 26.

    Which files are checked: torchvision compares the MD5 sums of SVHN's,
    STL-10's and CIFAR's files each time that it reads them (for STL-10 all
    files, 3 GB with the unlabeled images, for any split), and refuses wrong
    ones; for MNIST and similar sets, EMNIST included, it only checks that the
    files exist.

    Args:
        name: The class in ``torchvision.datasets``: ``'SVHN'``,
            ``'EMNIST'``, ``'STL10'``, ``'MNIST'``, ``'Flowers102'``, ...
        data_root: Its ``root``, for example the folder with ``EMNIST/raw``.
        pipeline: Transforms.
        classes: Class names; ``None``: torchvision's names, or numbers if it
            has none.
        test_mode: Whether the data are for testing. Also sets the default of
            torchvision's ``train`` (its opposite), or of ``split`` (``'test'``
            or ``'train'``) if there is no ``train``.
        channels: 3: convert grey images to colour; 1: the reverse; ``None``:
            no conversion.
        download: Let torchvision download missing files.
        **options: Torchvision's options, such as ``split='letters'``, and
            those of MMEngine's ``BaseDataset`` (``indices``, ``lazy_init``,
            ``metainfo``, ...).

    Raises:
        TypeError: An option that neither class takes, or one that is missing.
        ValueError: An unknown name or split, a data set of another task,
            samples without a class, or fewer class names than classes.
        FileNotFoundError: Files are missing or wrong.
    """

    takes_any = True

    def __init__(self,
                 name: str,
                 data_root: str = '',
                 pipeline: Sequence = (),
                 classes: str | Sequence[str] | None = None,
                 test_mode: bool = False,
                 channels: Literal[1, 3] | None = None,
                 download: bool = False,
                 **options: Any) -> None:
        self.name = name
        self._class = _find(name)
        takes = option_names(self._class) or []
        if 'root' in takes and not data_root:
            raise ValueError(f'TorchVisionDataset: name={name!r} needs '
                             'data_root, the folder with its files')
        ours = inspect.signature(BaseDataset).parameters
        # torchvision's data sets take no annotation file.
        base = {
            key: options.pop(key)
            for key in list(options)
            if key in ours and key not in ('ann_file', 'data_prefix')
        }
        allowed = [key for key in takes if key not in RESERVED]
        unknown = [key for key in options if key not in allowed]
        if unknown:
            raise ConfigError('TorchVisionDataset', unknown_options(
                unknown, f'torchvision.datasets.{name}', allowed))
        if 'train' in takes:
            options.setdefault('train', not test_mode)
        elif 'split' in takes:
            options.setdefault('split', 'test' if test_mode else 'train')
        self.options = options
        self.channels = channels
        self.download = download
        self.source: Any = None
        super().__init__(
            ann_file='',
            data_root=data_root,
            pipeline=pipeline,
            classes=classes,
            test_mode=test_mode,
            **base)

    def load_data_list(self) -> list[dict]:
        """Let torchvision read the data; the list has labels, not images."""
        self.source = self._open()
        labels = self._read_labels()
        names = self._metainfo.get('classes')
        if names is None:
            names = self._class_names(int(labels.max()) + 1)
            self._metainfo['classes'] = names
        if labels.max() >= len(names):
            raise ValueError(
                f'TorchVisionDataset.classes has {len(names)} names, and '
                f'{self.name} has labels up to {labels.max()}')
        return [
            dict(gt_label=label, source_index=i)
            for i, label in enumerate(labels.tolist())
        ]

    def _open(self) -> Any:
        """Torchvision's data set."""
        takes = option_names(self._class) or []
        given = dict(self.options)
        if 'root' in takes:
            given['root'] = os.path.expanduser(self.data_root)
        try:
            if self.download and 'download' in takes:
                # One process downloads, the others wait.
                if dist.is_main_process():
                    self._class(**given, download=True)
                dist.barrier()
            return self._class(**given)
        except (TypeError, ValueError) as error:
            raise type(error)(f'TorchVisionDataset: name={self.name!r} with '
                              f'{self.options}: {error}') from error
        except (RuntimeError, FileNotFoundError) as error:
            files = FILES.get(self.name, 'what torchvision documents')
            raise FileNotFoundError(
                f'TorchVisionDataset: name={self.name!r} not found in '
                f'data_root={self.data_root!r}, or not the original files: '
                f'torchvision wants {files.format(name=self.name)} there. '
                'Set data_root to where they are (--cfg-options '
                'train_dataloader.dataset.data_root=DIR, with one more '
                '.dataset where a wrapper is round it, and so in the other '
                'loaders), or ...dataset.download=True. Torchvision says: '
                f'{error}') from error

    def _read_labels(self) -> np.ndarray:
        """Class indices from 0, [N]."""
        labels = np.empty(0)
        for key in LABELS:
            if hasattr(self.source, key):
                labels = np.asarray(getattr(self.source, key))
                break
        if labels.shape != (len(self.source), ):
            # Slow if images are files: each one is read.
            try:
                labels = np.asarray([label for _, label in self.source])
            except (TypeError, ValueError):
                labels = np.empty(0)
        if labels.shape != (len(self.source), ) or labels.dtype.kind not in \
                'iu':
            raise ValueError(
                f'TorchVisionDataset: name={self.name!r} has not one class '
                'for each image; only classification data sets work')
        if self._shifted:
            labels = labels - 1
        if labels.min() < 0:
            raise ValueError(
                f'TorchVisionDataset: name={self.name!r} with {self.options} '
                'has samples without a class')
        return labels

    @property
    def _shifted(self) -> bool:
        """Whether torchvision's first class is number 1."""
        return self.name == 'EMNIST' and self.options['split'] == 'letters'

    def _class_names(self, number: int) -> tuple[str, ...]:
        names = getattr(self.source, 'classes', None)
        if names is None:
            return tuple(str(i) for i in range(number))
        return tuple(map(str, names[1:] if self._shifted else names))

    def get_data_info(self, idx: int) -> dict:
        """A sample with its image."""
        info = super().get_data_info(idx)
        image = self.source[info.pop('source_index')][0]
        mode = MODES[self.channels] if self.channels else \
            'L' if image.mode == 'L' else 'RGB'
        pixels = np.array(image.convert(mode))
        if self.name == 'EMNIST':
            pixels = np.ascontiguousarray(pixels.swapaxes(0, 1))
        info['img'] = pixels
        return info

    def get_cat_ids(self, idx: int) -> list[int]:
        """A sample's class in a list, without reading its image."""
        if not self._fully_initialized:
            self.full_init()
        return [super().get_data_info(idx)['gt_label']]

    def get_gt_labels(self) -> np.ndarray:
        """Classes of all samples, [N]."""
        return np.array([self.get_cat_ids(i)[0] for i in range(len(self))])

    def _copy_without_annotation(self, memo: dict | None = None
                                 ) -> BaseDataset:
        # A subset shares the images; it does not copy them.
        memo = {} if memo is None else memo
        memo[id(self.source)] = self.source
        return super()._copy_without_annotation(memo)

    def extra_repr(self) -> list[str]:
        """Lines that ``print(dataset)`` adds."""
        return [
            f'Torchvision: \t{self.name}', f'Options: \t{self.options}',
            f'Root: \t{self.data_root}'
        ]


def _find(name: str) -> type:
    """The class of that name in torchvision."""
    classes = {
        n: getattr(torchvision.datasets, n)
        for n in torchvision.datasets.__all__
    }
    names = [
        n for n, c in classes.items()
        if inspect.isclass(c) and issubclass(c, VisionDataset)
    ]
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=.4) \
            or names
        raise ValueError('TorchVisionDataset.name must be a class of '
                         f'torchvision.datasets, got {name!r}; nearest: '
                         f'{near}')
    return classes[name]
