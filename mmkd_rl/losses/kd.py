r"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531, section 2).

.. math:: D_m = T^2 \, KL(p_m \| p_S), \quad p = softmax(z / T)

summed over the classes, one number per sample and teacher. T^2 keeps the
gradient's size when T changes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_rl.registry import MODELS


@MODELS.register_module()
class KDLoss(nn.Module):
    """KL divergence between softened teacher and student distributions.

    Args:
        temperature: T.
        loss_weight: alpha of MTKD-RL, Eq. (2); applied by the distiller.

    Raises:
        ValueError: T is not positive, or the weight negative.
    """

    def __init__(self,
                 temperature: float = 4.0,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError('logit_loss.temperature must be > 0, got '
                             f'{temperature}')
        if loss_weight < 0:
            raise ValueError('logit_loss.loss_weight must be >= 0, got '
                             f'{loss_weight}')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self,
                student_BC: Tensor,
                teachers_BMC: Tensor,
                targets: Tensor | None = None) -> Tensor:
        """D_m, [B, M], in float32 whatever the inputs' precision.

        Args:
            student_BC: Student's logits; space may follow the classes, and is
                averaged over.
            teachers_BMC: Teachers' logits, likewise.
            targets: Not needed; every logit loss is given them.
        """
        log_q_B1C = F.log_softmax(
            student_BC.float() / self.temperature, dim=1).unsqueeze(1)
        log_p_BMC = F.log_softmax(
            teachers_BMC.float() / self.temperature, dim=2)
        divergence_BM = (log_p_BMC.exp() * (log_p_BMC - log_q_B1C)).sum(2)
        if divergence_BM.ndim > 2:
            divergence_BM = divergence_BM.flatten(2).mean(2)
        return divergence_BM * self.temperature**2
