"""The bytes in which the output of a teacher for one image is stored.

Legend: B batch, C classes, D channels, H W space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmkd_rl.records import Output
from mmkd_rl.teachers.stored.scores import (
    Codes,
    TopK,
    from_bytes,
    to_bytes,
    to_numpy,
)
from mmkd_rl.utils.pooling import mean_over_space

#: How feature maps are stored.
Features = Literal['pooled', 'float16', 'float32', 'uint8']
#: How class scores are stored, where not the top K alone.
Scores = Literal['uint8', 'float16', 'float32']
_DTYPES = dict(pooled='f2', float16='f2', float32='f4', uint8='u1')


@dataclass(frozen=True)
class RowFormat:
    """How outputs of one teacher become rows of bytes, one an image.

    Attributes:
        features: Shape of each level of features, (D, H, W) or (D,).
        logits: Shape of each level of class scores.
        edges: Shape of each level of edges, see :attr:`Output.edges`.
        kind: How features are stored: ``'pooled'``, averages over space in
            half precision; otherwise whole maps, ``'uint8'`` between each
            image's minimum and maximum.
        scores: How class scores are stored, see :mod:`.scores`; scores of
            pixels are in half precision in place of ``'uint8'``.
        top_k: K, where only the likeliest are.
    """
    features: tuple[tuple[int, ...], ...]
    logits: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, ...], ...]
    kind: Features
    scores: Scores
    top_k: int | None

    @classmethod
    def of(cls, output: Output, kind: Features, scores: Scores = 'uint8',
           top_k: int | None = None) -> RowFormat:
        """The format of outputs like ``output``. The top K are stored where
        they take fewer bytes than all."""
        features, logits, edges = (
            tuple(tuple(t.shape[1:]) for t in tensors)
            for tensors in (output.features, output.logits, output.edges))
        is_vector = len(logits) == 1 and len(logits[0]) == 1
        if scores == 'uint8' and not is_vector:
            scores = 'float16'
        form = cls(features, logits, edges, kind, scores, None)
        if top_k is not None and is_vector and 2 * (
                top_k + 1) < logits[0][0]:
            fewer = cls(features, logits, edges, kind, scores, top_k)
            if fewer.dtype.itemsize < form.dtype.itemsize:
                return fewer
        return form

    @property
    def dtype(self) -> np.dtype:
        """NumPy's type of a row."""
        fields: list[tuple] = []
        for i, shape in enumerate(self.features):
            stored = shape[:1] if self.kind == 'pooled' else shape
            fields.append((f'feature{i}', _DTYPES[self.kind], stored))
            if self.kind == 'uint8':
                fields.append((f'range{i}', 'f4', 2))
        if self._vector is not None:
            fields.append(('scores', self._vector.dtype))
        else:
            fields += [(f'logits{i}', _DTYPES[self.scores], shape)
                       for i, shape in enumerate(self.logits)]
        fields += [(f'edges{i}', 'f2', shape)
                   for i, shape in enumerate(self.edges)]
        return np.dtype(fields)

    @property
    def _vector(self) -> Codes | TopK | None:
        """How the scores of an image are written; ``None``: as they are."""
        if self.top_k is not None:
            return TopK(self.logits[0][0], self.top_k)
        return Codes(self.logits[0][0]) if self.scores == 'uint8' else None

    def encode(self, output: Output, labels: Tensor | None) -> np.ndarray:
        """The rows of outputs, [B].

        Args:
            output: The teacher's output.
            labels: Its class of each image, [B]; -1: none. ``None``: there
                are no labels.

        Raises:
            ValueError: The outputs have other shapes.
        """
        other = RowFormat.of(output, self.kind, self.scores, self.top_k)
        if other != self:
            raise ValueError(
                f'outputs of shapes {other.features} and {other.logits} '
                f'do not fit the store of {self.features} and {self.logits}: '
                'all images must have one size')
        rows = np.zeros(len(output.tensors()[0]), self.dtype)
        # Infinity for what half precision cannot hold; the caller looks.
        with np.errstate(over='ignore'):
            self._write(rows, output, labels)
        return rows

    def _write(self, rows: np.ndarray, output: Output,
               labels: Tensor | None) -> None:
        for i, feature in enumerate(output.features):
            if self.kind == 'uint8':
                codes, limits = to_bytes(feature.float())
                rows[f'feature{i}'] = to_numpy(codes)
                rows[f'range{i}'] = to_numpy(limits)
            else:
                rows[f'feature{i}'] = to_numpy(
                    mean_over_space(feature.float())
                    if self.kind == 'pooled' else feature)
        if self._vector is not None:
            self._vector.write(rows['scores'], output.logits[0].float(),
                               labels)
        else:
            for i, logits in enumerate(output.logits):
                rows[f'logits{i}'] = to_numpy(logits)
        for i, edges in enumerate(output.edges):
            rows[f'edges{i}'] = to_numpy(edges)

    def decode(self, rows: np.ndarray, device: torch.device) -> Output:
        """The outputs of rows, in float32. Pooled features of maps have the
        shape [B, D, 1, 1].

        Args:
            rows: From :meth:`encode`, [B].
            device: Device of the outputs.
        """
        def tensor(name: str) -> Tensor:
            # A copy: of a single row, the stride is no multiple of an item.
            return torch.from_numpy(rows[name].astype('f4')).to(device)

        features = []
        for i, shape in enumerate(self.features):
            feature = tensor(f'feature{i}')
            if self.kind == 'pooled':
                feature = feature.view(len(rows), -1, *[1] * len(shape[1:]))
            elif self.kind == 'uint8':
                feature = from_bytes(feature, tensor(f'range{i}'))
            features.append(feature)
        logits = (self._vector.read(rows['scores'], device), ) \
            if self._vector is not None else tuple(
                tensor(f'logits{i}') for i in range(len(self.logits)))
        return Output(tuple(features), logits, tuple(
            tensor(f'edges{i}') for i in range(len(self.edges))))
