"""Reads the outputs of a teacher from a store, and computes those that are not
there yet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from mmengine.logging import print_log
from pydantic import ByteSize, TypeAdapter
from torch import Tensor

from mmkd_rl.options import Checked, ConfigError, Count, under
from mmkd_rl.records import Batch, Output, ViewKey
from mmkd_rl.registry import EXECUTORS
from mmkd_rl.teachers.executor import Executor, Given, Tensors
from mmkd_rl.teachers.stored.identity import StoredViews, identity_of
from mmkd_rl.teachers.stored.rows import Features, RowFormat, Scores
from mmkd_rl.teachers.stored.store import Store, kind_in
from mmkd_rl.teachers.tapped import TappedNetwork


@EXECUTORS.register_module(name='stored')
class StoredExecutor(Executor, Checked):
    """Keeps the outputs of a teacher for each view of each image.

    All outputs in training pass through the form in which they are stored, so
    that a run is the same whether the store is full, empty, or filled by
    others meanwhile. Images without a :class:`ViewKey` are run live: those
    with which sizes are found, and those of pictures.

    Args:
        name: The teacher's name.
        network: The frozen network with its taps.
        read: See :class:`Executor`.
        folder: Folder of the stores of all teachers; this one's is below it
            and has the teacher's name.
        scores: How the scores of all classes are stored, see
            :mod:`.scores`: ``'uint8'``, ``'float16'`` or ``'float32'``.
        top_k: Store the scores of that many classes alone, beside the
            label's: smaller, and far from exact at temperatures above 1.
        features: ``'pooled'``: averages over space; whole maps as
            ``'float16'``, ``'float32'`` or ``'uint8'``. ``'auto'``: as in the
            store, if there is one that is enough; otherwise maps in half
            precision where a term compares them, and averages where none
            does.
        budget: Largest size of this teacher's store, in bytes or as
            ``'1.5GB'``.
    """

    gives_inner_layers = False

    def __init__(self, name: str, network: TappedNetwork,
                 read: Callable[[Tensors], Given], folder: str,
                 scores: Scores = 'uint8',
                 top_k: Count | None = None,
                 features: Features | Literal['auto'] = 'auto',
                 budget: ByteSize | None = None) -> None:
        super().__init__(name, network, read)
        self.folder = os.path.join(folder, re.sub(r'[^\w-]', '_', name))
        self.scores, self.top_k, self.features = scores, top_k, features
        self.budget = None if budget is None else TypeAdapter(
            ByteSize).validate_python(budget)
        self._views: StoredViews | None = None
        #: The teacher's class for each of the student's; ``None``: the same.
        self._classes: Tensor | None = None
        self._form: RowFormat | None = None
        self._store: Store | None = None
        #: Numbers of images whose outputs were read, and computed.
        self.read_count = self.run_count = 0

    def run(self, batch: Batch) -> Given:
        """Run the network in its own precision, float32 if it has none:
        what is stored serves students of any precision."""
        with torch.autocast(batch.images.device.type, enabled=False):
            return super().run(batch)

    def begin(self, views: StoredViews, maps: bool,
              classes: Tensor | None = None,
              settings: dict | None = None) -> None:
        """Prepare for a training; the files are made when the first batch has
        shown the sizes.

        Args:
            views: The training's images.
            maps: Whether feature maps are compared.
            classes: For each of the student's classes the teacher's, [C];
                ``None``: the same.
            settings: Further entries of the store's description, see
                :func:`identity_of`.

        Raises:
            ConfigError: Maps are compared, and averages are to be stored.
        """
        if maps and self.features == 'pooled':
            raise ConfigError(
                f'teacher {self.name!r}: executor.features', "is 'pooled', "
                'and a term compares feature maps; set '
                "'float16' or 'uint8', or distil logits alone "
                '(feature_loss=None)')
        self.flush()
        self._kind = self._choose(maps)
        self._views, self._classes = views, classes
        self._settings = dict(
            settings or {},
            classes=None if classes is None else classes.tolist())
        self._form = self._store = None

    def _choose(self, maps: bool) -> Features:
        """How features are stored; ``'auto'`` is explained in the class."""
        if self.features != 'auto':
            return self.features
        usual: Features = 'float16' if maps else 'pooled'
        there = kind_in(self.folder)
        if there in (None, usual) or maps and there == 'pooled':
            return usual
        print_log(f'teacher {self.name!r}: features are those of the store in '
                  f'{self.folder}, {there} (a new one would have {usual})',
                  'current')
        return there

    def __call__(self, batch: Batch) -> Given:
        """See :meth:`Executor.__call__`.

        Raises:
            ConfigError: An image is not the one whose output is stored; the
                store is of something else, or does not fit.
        """
        if batch.keys is None:
            return self.run(batch)
        if self._views is None:
            raise ConfigError(
                'custom_hooks', 'there is no StoredOutputsHook, which opens '
                f'the store of teacher {self.name!r}; add dict(type='
                "'mmkd_rl.StoredOutputsHook')")
        numbers = np.array([k.view * self._views.images + k.image
                            for k in batch.keys])
        # 0 means that there is no row.
        checksums = np.array([k.checksum or 1 for k in batch.keys], np.uint32)
        if self._store is None:
            self._open(batch)
        assert self._form is not None and self._store is not None
        known = self._store.known(numbers)
        self._check(batch.keys, known, checksums)
        absent = np.flatnonzero(known == 0)
        if len(absent):
            self._compute(batch, absent, numbers, checksums)
        self.read_count += len(numbers) - len(absent)
        return self._form.decode(self._store.read(numbers),
                                 batch.images.device), ()

    def absent(self) -> list[int]:
        """Indices, in the :class:`RepeatableViews`, of the views whose outputs
        are not stored yet; none before the first batch."""
        if self._store is None or self._views is None:
            return []
        count = self._views.images * self._views.views
        return self._store.absent(count).tolist()

    def flush(self) -> None:
        """Bring what was written to the disk."""
        if self._store is not None:
            self._store.flush()

    @property
    def description(self) -> str:
        """How much is stored, in words."""
        if self._store is None:
            return 'no store yet'
        return (f'{self._store.count():,} of {len(self._store):,} views '
                f'in {self.folder} (features: {self._kind}), '
                f'{ByteSize(self._store.size).human_readable(decimal=True)}')

    def _open(self, batch: Batch) -> None:
        """Run the network on an image to see its sizes, and open the
        store."""
        output, _ = self.run(Batch(batch.images[:1], batch.samples[:1]))
        assert self._views is not None
        self._form = RowFormat.of(output, self._kind, self.scores,
                                  self.top_k)
        with under(f'teacher {self.name!r}: executor'):
            self._store = Store(
                self.folder,
                identity_of(self.network, self._form, self._views,
                            self._settings),
                self._form.dtype, self._views.images, self._views.views,
                self.budget)
        print_log(f'teacher {self.name!r}: {self.description}', 'current')

    def _compute(self, batch: Batch, absent: np.ndarray, numbers: np.ndarray,
                 checksums: np.ndarray) -> None:
        """Run the network on the images whose rows are absent, and store
        them.

        Raises:
            FloatingPointError: The network gives NaN or infinity.
            ConfigError: The outputs do not fit half precision.
        """
        assert self._form is not None and self._store is not None
        part = batch
        if len(absent) < len(numbers):
            part = Batch(
                batch.images[torch.from_numpy(absent).to(batch.images.device)],
                [batch.samples[i] for i in absent])
        output, _ = self.run(part)
        if not _is_finite(output):
            raise FloatingPointError(
                f'teacher {self.name!r} gave NaN or infinity; check its '
                'checkpoint and its normalization')
        rows = self._form.encode(output, self._labels(part))
        if not _is_finite(self._form.decode(rows, batch.images.device)):
            raise ConfigError(
                f'teacher {self.name!r}: executor', 'half precision has no '
                "numbers as large as its outputs; set features='float32' or "
                "'uint8', and scores='float32'")
        self._store.write(numbers[absent], rows, checksums[absent])
        self.run_count += len(absent)

    def _labels(self, batch: Batch) -> Tensor | None:
        """The teacher's class of each image, [B], -1: none; ``None``: images
        do not have one label each."""
        labels = [getattr(s, 'gt_label', None) for s in batch.samples]
        if not labels or not all(isinstance(y, Tensor) and y.numel() == 1 and
                                 not y.is_floating_point() for y in labels):
            return None
        own = torch.stack([y.flatten()[0] for y in labels]).to(
            batch.images.device)
        return own if self._classes is None else self._classes.to(
            own.device)[own]

    def _check(self, keys: Sequence[ViewKey], known: np.ndarray,
               checksums: np.ndarray) -> None:
        """Raise ConfigError where a view is not the one that is stored."""
        wrong = np.flatnonzero((known != 0) & (known != checksums))
        if len(wrong):
            key = keys[wrong[0]]
            raise ConfigError(
                'train_dataloader.dataset', f'view {key.view} of image '
                f'{key.image} is not the one whose output is stored in '
                f'{self.folder!r}: the images, the pipeline or a library has '
                'changed, or a transform does not draw from the generators '
                'of Python, NumPy and PyTorch. Remove the store')


def _is_finite(output: Output) -> bool:
    return all(bool(t.isfinite().all()) for t in output.tensors())
