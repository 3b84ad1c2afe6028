r"""The bytes in which the output of a teacher for one image is stored.

Of class scores z, [C], K + 1 log-probabilities log p = z - lse(z) are stored
exactly: those of the label and of the K likeliest other classes, in half
precision, which has more digits where p is near 1. The log-sum-exp, lse, is
stored in float32. The K classes that follow share one level, and the remaining
classes another one, such that

.. math::
    \sum_c e^{z_c / T}

of either group is exact, at T = 2 for the first and at T = 4 for the second. A
single level for all of them (as in FKD, ECCV 2022, "marginal smoothing") would
be exact at one temperature alone: one that is right at T = 1 gives the
remaining classes half as much again at T = 4.

Legend: B batch, C classes, K stored classes, D channels, H W space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmkd_rl.records import Output
from mmkd_rl.utils.pooling import mean_over_space

#: How feature maps are stored.
Features = Literal['pooled', 'float16', 'float32', 'uint8']
#: Temperatures at which the levels of the two groups are exact.
_NEXT, _REST = 2., 4.
#: Values of a byte.
_STEPS = 255
_DTYPES = dict(pooled='f2', float16='f2', float32='f4', uint8='u1')


@dataclass(frozen=True)
class RowFormat:
    """How outputs of one teacher become rows of bytes, one an image.

    Attributes:
        features: Shape of each level of features, (D, H, W) or (D,).
        logits: Shape of each level of class scores.
        edges: Shape of each level of edges, see :attr:`Output.edges`.
        kind: How features are stored: ``'pooled'``, averages over space;
            otherwise whole maps, ``'uint8'`` between each image's minimum
            and maximum.
        top_k: K; ``None``: all class scores, in half precision.
    """
    features: tuple[tuple[int, ...], ...]
    logits: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, ...], ...]
    kind: Features
    top_k: int | None

    @classmethod
    def of(cls, output: Output, kind: Features,
           top_k: int | None) -> RowFormat:
        """The format of outputs like ``output``; all class scores where they
        take no more bytes, or are scores of pixels."""
        features, logits, edges = (
            tuple(tuple(t.shape[1:]) for t in kind_)
            for kind_ in (output.features, output.logits, output.edges))
        if top_k is not None:
            of_vector = len(logits) == 1 and len(logits[0]) == 1
            fewer = of_vector and 2 * (top_k + 1) < logits[0][0] and \
                _top_dtype(top_k, logits[0][0]).itemsize < 2 * logits[0][0]
            top_k = top_k if fewer else None
        return cls(features, logits, edges, kind, top_k)

    @property
    def dtype(self) -> np.dtype:
        """NumPy's type of a row."""
        fields: list[tuple] = []
        for i, shape in enumerate(self.features):
            stored = shape[:1] if self.kind == 'pooled' else shape
            fields.append((f'feature{i}', _DTYPES[self.kind], stored))
            if self.kind == 'uint8':
                fields.append((f'range{i}', 'f4', 2))
        if self.top_k is not None:
            fields.append(('top', _top_dtype(self.top_k, self.logits[0][0])))
        else:
            fields += [(f'logits{i}', 'f2', shape)
                       for i, shape in enumerate(self.logits)]
        fields += [(f'edges{i}', 'f2', shape)
                   for i, shape in enumerate(self.edges)]
        return np.dtype(fields)

    def encode(self, output: Output, labels: Tensor | None) -> np.ndarray:
        """The rows of outputs, [B].

        Args:
            output: The teacher's output.
            labels: Its class of each image, [B]; -1: none. ``None``: there
                are no labels.

        Raises:
            ValueError: The outputs have other shapes.
        """
        other = RowFormat.of(output, self.kind, self.top_k)
        if (other.features, other.logits, other.edges) != (
                self.features, self.logits, self.edges):
            raise ValueError(
                f'outputs of shapes {other.features} and {other.logits} '
                f'do not fit the store of {self.features} and {self.logits}: '
                'all images must have one size')
        rows = np.zeros(len(output.tensors()[0]), self.dtype)
        for i, feature in enumerate(output.features):
            if self.kind == 'uint8':
                codes, limits = _to_bytes(feature.float())
                rows[f'feature{i}'], rows[f'range{i}'] = _numpy(codes), \
                    _numpy(limits)
            else:
                rows[f'feature{i}'] = _numpy(
                    mean_over_space(feature.float())
                    if self.kind == 'pooled' else feature)
        if self.top_k is not None:
            _encode_top(rows['top'], output.logits[0].float(), labels,
                        self.top_k)
        else:
            for i, logits in enumerate(output.logits):
                rows[f'logits{i}'] = _numpy(logits)
        for i, edges in enumerate(output.edges):
            rows[f'edges{i}'] = _numpy(edges)
        return rows

    def decode(self, rows: np.ndarray, device: torch.device) -> Output:
        """The outputs of rows, in float32. Pooled features of maps have the
        shape [B, D, 1, 1].

        Args:
            rows: From :meth:`encode`, [B].
            device: Device of the outputs.
        """
        def tensor(name: str) -> Tensor:
            # A copy: of a single row, the stride is no multiple of an item.
            return torch.from_numpy(rows[name].copy()).to(device)

        features = []
        for i, shape in enumerate(self.features):
            feature = tensor(f'feature{i}').float()
            if self.kind == 'pooled':
                feature = feature.view(len(rows), -1, *[1] * len(shape[1:]))
            elif self.kind == 'uint8':
                low, high = (
                    v.view(-1, *[1] * len(shape))
                    for v in tensor(f'range{i}').unbind(1))
                feature = low + feature * ((high - low) / _STEPS)
            features.append(feature)
        if self.top_k is not None:
            logits: tuple[Tensor, ...] = (_decode_top(
                rows['top'], self.top_k, self.logits[0][0], device), )
        else:
            logits = tuple(tensor(f'logits{i}').float()
                           for i in range(len(self.logits)))
        return Output(tuple(features), logits, tuple(
            tensor(f'edges{i}').float() for i in range(len(self.edges))))


def _top_dtype(top_k: int, classes: int) -> np.dtype:
    index = 'u1' if classes <= 2**8 else 'u2' if classes <= 2**16 else 'u4'
    return np.dtype([('value', 'f2', top_k + 1), ('level', 'f2', 2),
                     ('lse', 'f4'), ('index', index, 2 * top_k + 1)])


def _encode_top(rows: np.ndarray, logits_BC: Tensor, labels_B: Tensor | None,
                top_k: int) -> None:
    """Write class scores into rows of :func:`_top_dtype`, in place."""
    lse_B1 = logits_BC.logsumexp(1, keepdim=True)
    log_p_BC = logits_BC - lse_B1
    key_BC = log_p_BC
    if labels_B is not None:
        given = (labels_B >= 0) & (labels_B < logits_BC.shape[1])
        first = torch.where(given, labels_B, log_p_BC.argmax(1))
        # The label comes first, whatever its score.
        key_BC = log_p_BC.scatter(1, first[:, None], torch.inf)
    order_BC = key_BC.argsort(1, descending=True)
    sorted_BC = log_p_BC.gather(1, order_BC)
    exact, group = top_k + 1, 2 * top_k + 1
    rows['value'] = _numpy(sorted_BC[:, :exact])
    rows['index'] = _numpy(order_BC[:, :group])
    rows['lse'] = _numpy(lse_B1[:, 0])
    rows['level'] = _numpy(torch.stack([
        _level(sorted_BC[:, exact:group], _NEXT),
        _level(sorted_BC[:, group:], _REST)], 1))


def _level(log_p: Tensor, temperature: float) -> Tensor:
    """The level of all classes of a group that has the same sum of
    exp(z / T), [B]."""
    mean = (log_p / temperature).logsumexp(1) - np.log(log_p.shape[1])
    return temperature * mean


def _decode_top(rows: np.ndarray, top_k: int, classes: int,
                device: torch.device) -> Tensor:
    """Class scores, [B, C], from rows of :func:`_top_dtype`."""
    value, level, lse, index = (
        torch.from_numpy(rows[name].astype(kind)).to(device)
        for name, kind in (('value', 'f4'), ('level', 'f4'), ('lse', 'f4'),
                           ('index', 'i8')))
    logits = level[:, 1:].expand(-1, classes).clone()
    known = torch.cat([value, level[:, :1].expand(-1, top_k)], 1)
    return logits.scatter_(1, index, known) + lse[:, None]


def _to_bytes(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of 0 to 255 between the minimum and the maximum of each image,
    and these, [B, 2]."""
    flat = feature.flatten(1)
    limits = torch.stack([flat.amin(1), flat.amax(1)], 1)
    low, high = (v.view(-1, *[1] * (feature.ndim - 1))
                 for v in limits.unbind(1))
    step = ((high - low) / _STEPS).clamp_min(torch.finfo(torch.float32).tiny)
    return ((feature - low) / step).round().to(torch.uint8), limits


def _numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else
            tensor).numpy()
