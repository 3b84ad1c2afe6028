r"""Class scores of an image in few bytes.

Of scores z, [C], the log-sum-exp lse(z) is stored in float32, and log p =
z - lse(z) for the label in half precision, which has more digits where p is
near 1: the cross entropy is exact. The other classes' log p are stored

- as **codes** of a byte each, between the smallest and the largest; when they
  are read, the probabilities are multiplied by one number, so that they sum to
  one with the label's; or
- for the **top K** alone, in half precision. The K classes that follow share
  one level a, and the remaining R classes another one, b < a, such that two
  sums over both groups are exact,

.. math::
    K e^{a/T} + R e^{b/T} = \sum_c p_c^{1/T}  \quad at\ T = 1\ and\ T = 4,

so that no probability of the K + 1 classes changes at either temperature. With
one level for all classes that are not stored (Shen & Xing, FKD, ECCV 2022,
"marginal smoothing") the sum is exact at T = 1 alone.

What either costs in precision is in docs/stored.md: of KD's gradient at T = 4
codes lose 1 %, and the ten likeliest of CIFAR-100's classes 64 %.

Legend: B batch, C classes, K stored classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: The second temperature at which sums are exact.
_TEMPERATURE = 4.
#: Halvings of the interval in which a level is searched.
_HALVINGS = 40
#: Values of a byte.
STEPS = 255


class Codes:
    """Scores of all classes, a byte each.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        #: NumPy's type of the scores of an image.
        self.dtype = np.dtype([
            ('range', 'f4', 2), ('lse', 'f4'), ('label', 'f2'),
            ('index', _index_type(classes)), ('code', 'u1', classes)])

    def write(self, rows: np.ndarray, logits_BC: Tensor,
              labels_B: Tensor | None) -> None:
        """Write scores, in place.

        Args:
            rows: Of :attr:`dtype`, [B].
            logits_BC: The scores.
            labels_B: Class of each image; -1: none. ``None``: no labels.
        """
        lse_B1 = logits_BC.logsumexp(1, keepdim=True)
        log_p_BC = logits_BC - lse_B1
        labels_B1 = _given(labels_B, log_p_BC)[:, None]
        codes, limits = to_bytes(log_p_BC)
        rows['code'], rows['range'] = to_numpy(codes), to_numpy(limits)
        rows['lse'] = to_numpy(lse_B1[:, 0])
        rows['index'] = to_numpy(labels_B1[:, 0])
        rows['label'] = to_numpy(log_p_BC.gather(1, labels_B1)[:, 0])

    def read(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """The scores, [B, C], of what :meth:`write` wrote."""
        code, limits, lse, label, index = _tensors(
            rows, device, code='f4', range='f4', lse='f4', label='f4',
            index='i8')
        log_p = from_bytes(code, limits)
        # The others' probabilities are rounded: so that all sum to one, and
        # the label's stays, they are multiplied by one number.
        others = log_p.scatter(1, index[:, None], -torch.inf).logsumexp(1)
        left = (-label.expm1()).log()
        shift = torch.where(others.isfinite() & left.isfinite(),
                            left - others, 0.)
        log_p = (log_p + shift[:, None]).scatter_(
            1, index[:, None], label[:, None])
        return log_p + lse[:, None]


class TopK:
    """Scores of the label and of the K likeliest other classes.

    Args:
        classes: C, more than 2 K + 2.
        top_k: K.
    """

    def __init__(self, classes: int, top_k: int) -> None:
        self.classes, self.top_k = classes, top_k
        #: NumPy's type of the scores of an image.
        self.dtype = np.dtype([
            ('value', 'f2', top_k + 1), ('level', 'f2', 2), ('lse', 'f4'),
            ('index', _index_type(classes), 2 * top_k + 1)])

    def write(self, rows: np.ndarray, logits_BC: Tensor,
              labels_B: Tensor | None) -> None:
        """See :meth:`Codes.write`."""
        lse_B1 = logits_BC.logsumexp(1, keepdim=True)
        log_p_BC = logits_BC - lse_B1
        # The label comes first, whatever its score.
        first = _given(labels_B, log_p_BC)[:, None]
        order_BC = log_p_BC.scatter(1, first, torch.inf).argsort(
            1, descending=True)
        sorted_BC = log_p_BC.gather(1, order_BC)
        exact, group = self.top_k + 1, 2 * self.top_k + 1
        rows['value'] = to_numpy(sorted_BC[:, :exact])
        rows['index'] = to_numpy(order_BC[:, :group])
        rows['lse'] = to_numpy(lse_B1[:, 0])
        rows['level'] = to_numpy(_levels(sorted_BC[:, exact:], self.top_k))

    def read(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """See :meth:`Codes.read`."""
        value, level, lse, index = _tensors(
            rows, device, value='f4', level='f4', lse='f4', index='i8')
        log_p = level[:, 1:].expand(-1, self.classes).clone()
        known = torch.cat([value, level[:, :1].expand(-1, self.top_k)], 1)
        return log_p.scatter_(1, index, known) + lse[:, None]


def to_bytes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of 0 to 255 between the minimum and the maximum of each image,
    [B, ...], and these two, [B, 2]."""
    flat = values.flatten(1)
    limits = torch.stack([flat.amin(1), flat.amax(1)], 1)
    low, high = _limits(limits, values.ndim)
    step = ((high - low) / STEPS).clamp_min(torch.finfo(torch.float32).tiny)
    return ((values - low) / step).round().to(torch.uint8), limits


def from_bytes(codes: Tensor, limits: Tensor) -> Tensor:
    """Inverse of :func:`to_bytes`, with an error of at most half a step.

    Args:
        codes: Codes of 0 to 255, float32, [B, ...].
        limits: Minimum and maximum of each image, [B, 2].
    """
    low, high = _limits(limits, codes.ndim)
    return low + codes * ((high - low) / STEPS)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The values of a tensor."""
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else
            tensor).numpy()


def _limits(limits: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    low, high = (v.view(-1, *[1] * (ndim - 1)) for v in limits.unbind(1))
    return low, high


def _index_type(classes: int) -> str:
    return 'u1' if classes <= 2**8 else 'u2' if classes <= 2**16 else 'u4'


def _tensors(rows: np.ndarray, device: torch.device,
             **types: str) -> list[Tensor]:
    """Fields of rows as tensors. Copies: of a single row, the stride is no
    multiple of an item."""
    return [torch.from_numpy(rows[name].astype(kind)).to(device)
            for name, kind in types.items()]


def _given(labels_B: Tensor | None, log_p_BC: Tensor) -> Tensor:
    """The label of each image, [B]; the likeliest class where there is
    none."""
    likeliest = log_p_BC.argmax(1)
    if labels_B is None:
        return likeliest
    return torch.where((labels_B >= 0) & (labels_B < log_p_BC.shape[1]),
                       labels_B, likeliest)


def _levels(log_p: Tensor, first: int) -> Tensor:
    """The levels a and b of two groups of classes, [B, 2].

    With u = exp(a / T) and v = exp(b / T), K u + R v is given, so that
    K u^T + R v^T falls while v rises from 0 to u.

    Args:
        log_p: Log-probabilities of the classes of both groups.
        first: K, the number of classes of the first group.
    """
    log_p = log_p.double()
    rest = log_p.shape[1] - first
    # Divided by the largest one, so that no sum underflows.
    top_B1 = log_p.amax(1, keepdim=True)
    x = (log_p - top_B1).exp()
    sum_1 = x.sum(1)
    sum_t = (x**(1 / _TEMPERATURE)).sum(1)
    low, high = torch.zeros_like(sum_t), sum_t / (first + rest)
    for _ in range(_HALVINGS):
        v = (low + high) / 2
        u = (sum_t - rest * v) / first
        above = first * u**_TEMPERATURE + rest * v**_TEMPERATURE > sum_1
        low, high = torch.where(above, v, low), torch.where(above, high, v)
    # The sum at T = 1 is exact in any case, also where v cannot be small
    # enough for both.
    u = ((sum_1 - rest * low**_TEMPERATURE) / first)**(1 / _TEMPERATURE)
    levels = _TEMPERATURE * torch.stack([u, low.clamp_min(1e-3)], 1).log()
    return (levels + top_B1).float()
