r"""Teachers' features in one scale (``standardize=True``).

.. math:: F'_m = (F_m - \mu_m) / \sigma_m

with the mean and standard deviation of each channel over all valid pixels of
the training so far (the teacher is frozen, so they settle within a few
batches). Without it a teacher whose features are larger, because of its
family and its norm layers, has a larger loss and a larger share of the
student's gradient, whatever its weight: the squared error grows with the
square of the scale. The projector learns the standardised channels.

Not in MTKD-RL, Eq. (2), which compares the features as they are. With several
processes the statistics are those of the whole batch. A constant channel
becomes zero. Statistics are saved with the term, and are not updated in
evaluation and in passes without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd_rl.records import Pair, Pairs
from mmkd_rl.utils.processes import sums_over_processes
from mmkd_rl.utils.running_moments import RunningMoments

#: Standard deviation, relative to the root mean square, below which a channel
#: varies by rounding error alone.
_ROUNDING = 1e-4
#: Number below which a sum of weights is zero.
_NONE = 1e-6


class TeacherScales(nn.Module):
    """Statistics of the channels of each teacher and level.

    Args:
        widths: Number of channels of each level of each teacher.
    """

    def __init__(self, widths: Sequence[Sequence[int]]) -> None:
        super().__init__()
        #: [M][L].
        self.moments = nn.ModuleList(
            nn.ModuleList(RunningMoments(width) for width in levels)
            for levels in widths)

    def forward(self, pairs: Pairs) -> Pairs:
        """The pairs with standardised teachers; in training the batch is
        added to the statistics first."""
        moments: list[RunningMoments] = [
            m for levels in self.moments
            for m in levels]  # type: ignore[attr-defined]
        flat = [pair for levels in pairs for pair in levels]
        # A second pass over the same batch has no gradient.
        if self.training and torch.is_grad_enabled():
            self._add(moments, flat)
        scaled = iter([_standardized(p, m) for p, m in zip(flat, moments)])
        return tuple(tuple(next(scaled) for _ in levels) for levels in pairs)

    @torch.no_grad()
    def _add(self, moments: Sequence[RunningMoments],
             pairs: Sequence[Pair]) -> None:
        # Centred at the present mean, against cancellation.
        sums = sums_over_processes([
            total for moment, pair in zip(moments, pairs)
            for total in _sums(pair, moment.mean)])
        for i, moment in enumerate(moments):
            count, first_D, second_D = sums[3 * i:3 * i + 3]
            shift_D = first_D / count.clamp_min(_NONE)
            moment.merge(
                moment.mean + shift_D,
                (second_D / count.clamp_min(_NONE) -
                 shift_D.square()).clamp_min(0), count)


def _sums(pair: Pair, mean_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of weights, and weighted sums of the centred values and squares."""
    x = pair.teacher.float()
    x = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)
    x = x - mean_D[:, None]
    if pair.valid is None:
        return (x.new_tensor(float(x.shape[0] * x.shape[2])), x.sum((0, 2)),
                x.square().sum((0, 2)))
    v_B1P = pair.valid.to(x).flatten(1).unsqueeze(1)
    # Not only a weight of 0: invalid pixels may be infinite.
    x = torch.where(v_B1P > 0, x, 0.)
    return v_B1P.sum(), (x * v_B1P).sum((0, 2)), (
        x.square() * v_B1P).sum((0, 2))


def _standardized(pair: Pair, moments: RunningMoments) -> Pair:
    var_D, mean_D = moments.var, moments.mean
    varies_D = var_D > _ROUNDING**2 * (var_D + mean_D.square())
    scale_D = torch.where(varies_D, var_D, 1.).sqrt()
    shape = (-1, *[1] * (pair.teacher.ndim - 2))
    teacher = (pair.teacher.float() - mean_D.view(shape)) * (
        varies_D / scale_D).view(shape)
    return Pair(pair.student, teacher, pair.valid, (mean_D, scale_D))
