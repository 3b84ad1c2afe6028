r"""FitNet (Romero et al. 2014, arXiv:1412.6550, Eq. 3), at the last feature.

.. math:: MSE_m = mean_{D,H,W} (r_m(F_S) - F_m)^2

one number per sample and teacher; r_m is the projector. FitNet's separate
hint stage is left out: as in MTKD-RL, Eq. (2), the term is trained together
with the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd_rl.registry import MODELS


@MODELS.register_module()
class FitNetLoss(nn.Module):
    """Mean squared error between projected student and teacher features.

    Args:
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller.

    Raises:
        ValueError: The weight is negative.
    """

    def __init__(self, loss_weight: float = 5.0) -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError('feature_loss.loss_weight must be >= 0, got '
                             f'{loss_weight}')
        self.loss_weight = loss_weight

    def forward(self,
                pairs: Sequence[tuple[Tensor, Tensor]],
                targets: Tensor | None = None) -> Tensor:
        """MSE_m, [B, M], in float32.

        Args:
            pairs: For each teacher r_m(F_S) and F_m, [B, D_m, ...] both.
            targets: Not needed; every feature loss is given them.
        """
        return torch.stack([_mse(*pair) for pair in pairs], dim=1)


def _mse(projected: Tensor, target: Tensor) -> Tensor:
    """Mean square of the difference, [B].

    By way of the norm, which reads the difference once and keeps no square of
    it: on maps this is the dearest part of distillation, and by
    ``square().mean()`` it takes 2.6 times as long forward and back.
    """
    difference = projected.float() - target.float()
    norm = torch.linalg.vector_norm(
        difference, dim=tuple(range(1, difference.ndim)))
    return norm.square() / difference[0].numel()
