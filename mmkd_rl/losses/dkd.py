r"""Decoupled distillation (Zhao et al. 2022, arXiv:2203.08679).

.. math::
    L = T^2 (\alpha \, KL(b_m \| b_S) + \beta \, KL(\hat p_m \| \hat p_S))

b = (p_y, 1 - p_y) is the distribution over the true class y and all others
(TCKD), p^ the softmax over the other classes alone (NCKD), both at temperature
T. KD is the case alpha = 1, beta = 1 - p_y of the teacher: NCKD has little
weight where the teacher is confident.

With d = z_y / T - logsumexp of the others, b is a sigmoid of d; so both terms
are computed from logits, and no probability is subtracted from one. C = 2:
NCKD is zero; C = 1: both are zero. Left out: the published code's linear
warm-up of the loss over the first epochs (20; ImageNet: 1). For labels that
are probabilities (mixup, label smoothing) y is the most probable class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_rl.losses.base import LogitTerm, mean_over_levels, stacked_levels
from mmkd_rl.options import ConfigError, NonNegative, Positive
from mmkd_rl.records import Pairs, Truth
from mmkd_rl.registry import MODELS


@MODELS.register_module()
class DKDLoss(LogitTerm):
    """KL divergences of the true class (TCKD) and among the others (NCKD).

    Args:
        alpha: Weight of TCKD.
        beta: Weight of NCKD; in the authors' configs 2, 6 or 8 by pair of
            networks on CIFAR-100, and 0.5 or 2 on ImageNet.
        temperature: T; 4 on CIFAR-100 and 1 on ImageNet in these configs.
        loss_weight: alpha of MTKD-RL, Eq. (2); applied by the distiller.
    """

    def __init__(self,
                 alpha: NonNegative = 1.0,
                 beta: NonNegative = 8.0,
                 temperature: Positive = 4.0,
                 loss_weight: NonNegative = 1.0) -> None:
        super().__init__(temperature, loss_weight)
        self.alpha, self.beta = alpha, beta

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """The loss of each sample and teacher, [B, M], in float32.

        Raises:
            ConfigError: There are no class labels, or logits have spatial
                axes.
        """
        return mean_over_levels([
            self._level(student_BC, teachers_BMC, truth.targets)
            for student_BC, teachers_BMC, _ in stacked_levels(pairs)
        ])

    def _level(self, student_BC: Tensor, teachers_BMC: Tensor,
               targets: Tensor | None) -> Tensor:
        if not isinstance(targets, Tensor):
            raise ConfigError('DKDLoss needs the true labels, and there are '
                              'none; use KDLoss or DISTLoss')
        if student_BC.ndim != 2:
            raise ConfigError(
                'DKDLoss takes one vector of logits an image, got '
                f'logits of shape {tuple(student_BC.shape)}; use KDLoss')
        if targets.ndim == 2:
            targets = targets.argmax(1)
        z_B1C = student_BC.float().unsqueeze(1) / self.temperature
        z_BMC = teachers_BMC.float() / self.temperature
        if z_BMC.shape[2] == 1:
            return 0 * (z_B1C - z_BMC).sum(2)
        d_B1, others_B1C = _split(z_B1C, targets)
        d_BM, others_BMC = _split(z_BMC, targets)
        tckd_BM = d_BM.sigmoid() * (F.logsigmoid(d_BM) - F.logsigmoid(d_B1)) \
            + (-d_BM).sigmoid() * (F.logsigmoid(-d_BM) - F.logsigmoid(-d_B1))
        log_p_BMC = others_BMC.log_softmax(2)
        nckd_BM = (log_p_BMC.exp() *
                   (log_p_BMC - others_B1C.log_softmax(2))).sum(2)
        return (self.alpha * tckd_BM +
                self.beta * nckd_BM) * self.temperature**2


def _split(z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Split logits [B, M, C] into the log odds of the true class [B, M] and
    the logits of the other classes [B, M, C - 1]."""
    y_B11 = targets.view(-1, 1, 1)
    # 0 1 .. C - 1 without y
    index = torch.arange(z.shape[2] - 1, device=z.device)
    index = index + (index >= y_B11)
    others = z.gather(2, index.expand(-1, z.shape[1], -1))
    true = z.gather(2, y_B11.expand(-1, z.shape[1], -1)).squeeze(2)
    return true - others.logsumexp(2), others
