r"""Distillation of scores that have a sigmoid each, as in dense detectors
(Yang et al. 2023, arXiv:2308.14286, "Bridging Cross-task Protocol
Inconsistency for Distillation in Dense Object Detection", Eqs. 4 to 6).

.. math::
    D_m = \frac{T^2}{\max(1, N_m)} \sum_{x,c} |p_m - p_S|^\gamma \,
    \big( p_m \ln \tfrac{p_m}{p_S} +
    (1 - p_m) \ln \tfrac{1 - p_m}{1 - p_S} \big), \quad
    p = \sigma(z / T), \quad N_m = \sum_x \max_c \sigma(z_m)

over the locations x and channels c (a class of an anchor) of all levels; one
number per image and teacher. The factor in front makes little of the many
locations on which both agree that there is nothing. Deviations:

- The divergence in place of the binary cross entropy: the same gradient where
  gamma is 0, and zero where student and teacher are equal.
- N_m, the teacher's own count of locations with an object, in place of the
  number of locations that the student's head assigns to objects, so that no
  labels are needed.
- T, which is 1 in the paper.

Padding is left out. Channels of classes that a teacher with a class map does
not know have no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmkd_rl.losses.base import LogitTerm
from mmkd_rl.losses.class_map import without_unknown
from mmkd_rl.options import NonNegative, Positive
from mmkd_rl.records import Pair, Pairs, Truth
from mmkd_rl.registry import MODELS

#: Distances of probabilities are at least this: with gamma < 1 the gradient
#: would be infinite at 0.
_TINY = 1e-6


@MODELS.register_module()
class BinaryKDLoss(LogitTerm):
    """Divergence between the probabilities of student and teacher, class by
    class.

    Args:
        temperature: T.
        gamma: See above; 0: all locations count alike.
        loss_weight: alpha of MTKD-RL, Eq. (2); applied by the distiller.
    """

    softmax = False

    def __init__(self,
                 temperature: Positive = 1.0,
                 gamma: NonNegative = 1.0,
                 loss_weight: NonNegative = 1.0) -> None:
        super().__init__(temperature, loss_weight)
        self.gamma = gamma

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """D_m, [B, M], in float32."""
        return over_levels(pairs, lambda pair: binary_divergence(
            pair, self.temperature, self.gamma))

    def _known_alone(self, student: Tensor, teacher: Tensor,
                     known_C: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`without_unknown`."""
        return without_unknown(student, teacher, known_C)


def over_levels(pairs: Pairs, level: Callable[[Pair], tuple[Tensor, Tensor]]
                ) -> Tensor:
    """A sum over all levels, divided by a count over all levels, or by 1 if
    that is larger, [B, M].

    Args:
        pairs: Pairs of each teacher's levels.
        level: Sum and count of one level, [B] each.
    """
    columns = []
    for levels in pairs:
        total_B, count_B = (torch.stack(values).sum(0)
                            for values in zip(*map(level, levels)))
        columns.append(total_B / count_B.clamp_min(1))
    return torch.stack(columns, 1)


def binary_divergence(pair: Pair, temperature: float,
                      gamma: float) -> tuple[Tensor, Tensor]:
    """T^2 times the sum over locations and channels, and N_m, of one level,
    [B] each.

    Args:
        pair: Scores of student and teacher.
        temperature: T.
        gamma: See the top of this file.
    """
    student, teacher = pair.student.float(), pair.teacher.float()
    objects_BHW = teacher.amax(1).sigmoid()
    if pair.valid is not None:
        # Scores of padding may be infinite.
        valid = pair.valid.unsqueeze(1) > 0
        student, teacher = (torch.where(valid, x, 0.)
                            for x in (student, teacher))
        objects_BHW = torch.where(pair.valid > 0, objects_BHW * pair.valid, 0.)
    total_B: Tensor = _Divergence.apply(student, teacher, pair.valid,
                                        temperature, gamma)
    return total_B, objects_BHW.flatten(1).sum(1)


class _Divergence(torch.autograd.Function):
    """Divergence summed over channels and locations, whose gradient is found
    in the same pass. Score maps are the largest tensors of a detector, and
    autograd would keep and read several of each."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor,
                valid: Tensor | None, temperature: float,
                gamma: float) -> Tensor:
        """T^2 times the sum over [B, C, H, W], [B]."""
        p, q = (x if temperature == 1 else x / temperature
                for x in (teacher, student))
        share, own = p.sigmoid(), q.sigmoid()
        # Cross entropy minus entropy of a sigmoid's distribution.
        value = F.softplus(q).sub_(F.softplus(p)).sub_((q - p).mul_(share))
        slope = own - share
        if gamma:
            distance = slope.abs().clamp_min_(_TINY)
            factor = distance if gamma == 1 else distance**gamma
            # d factor / dq; where the distance is clamped it is zero.
            change = slope.sign().mul_(distance > _TINY).mul_(
                own * (1 - own)).mul_(value)
            if gamma != 1:
                change.mul_(gamma * distance**(gamma - 1))
            slope.mul_(factor).add_(change)
            value.mul_(factor)
        if valid is not None:
            value.mul_(valid.unsqueeze(1))
            slope.mul_(valid.unsqueeze(1))
        ctx.save_for_backward(slope.mul_(temperature))
        return temperature**2 * value.flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient at the student's scores, [B, C, H, W]."""
        slope, = ctx.saved_tensors
        return grad_B.view(-1, 1, 1, 1) * slope, None, None, None, None
