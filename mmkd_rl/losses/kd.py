r"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531, section 2).

.. math:: D_m = T^2 \, KL(p_m \| p_S), \quad p = softmax(z / T)

summed over the classes, one number per sample and teacher. T^2 keeps the size
of the gradient nearly independent of T.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmkd_rl.losses.base import LogitTerm, mean_over_levels, stacked_levels
from mmkd_rl.options import NonNegative, Positive
from mmkd_rl.records import Pairs, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.pooling import masked_mean


@MODELS.register_module()
class KDLoss(LogitTerm):
    """KL divergence between softened teacher and student distributions.

    Args:
        temperature: T.
        loss_weight: alpha of MTKD-RL, Eq. (2); applied by the distiller.
    """

    def __init__(self,
                 temperature: Positive = 4.0,
                 loss_weight: NonNegative = 1.0) -> None:
        super().__init__(temperature, loss_weight)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """D_m, [B, M], in float32 whatever the inputs' precision; for dense
        logits the mean over valid pixels."""
        return mean_over_levels([
            kd_divergence(*level, self.temperature)
            for level in stacked_levels(pairs)
        ])


def kd_divergence(student_BC: Tensor, teachers_BMC: Tensor,
                  valid: Tensor | None, temperature: float) -> Tensor:
    """T^2 KL(p_m || p_S), [B, M].

    Args:
        student_BC: Student's logits; spatial axes may follow the classes.
        teachers_BMC: Teachers' logits, likewise.
        valid: Weight of each pixel for each teacher, [B, M, ...]; ``None``:
            all are valid.
        temperature: T.
    """
    log_q_B1C = F.log_softmax(
        student_BC.float() / temperature, dim=1).unsqueeze(1)
    log_p_BMC = F.log_softmax(teachers_BMC.float() / temperature, dim=2)
    divergence_BM = (log_p_BMC.exp() * (log_p_BMC - log_q_B1C)).sum(2)
    if divergence_BM.ndim > 2:
        count = divergence_BM.shape[1]
        if valid is not None:
            valid = valid.flatten(0, 1)
        divergence_BM = masked_mean(
            divergence_BM.flatten(0, 1), valid).view(-1, count)
    return divergence_BM * temperature**2


def kd_gradient(student_BC: Tensor, teachers_BMC: Tensor,
                temperature: float) -> Tensor:
    """grad_z D_m = T (q_S - q_m), [B, M, C, ...].

    Args:
        student_BC: Student's logits z.
        teachers_BMC: Teachers' logits.
        temperature: T.
    """
    q_B1C = (student_BC.float() / temperature).softmax(1).unsqueeze(1)
    return temperature * (q_B1C -
                          (teachers_BMC.float() / temperature).softmax(2))
