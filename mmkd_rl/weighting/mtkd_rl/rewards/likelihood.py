r"""A teacher's own probability of the true class; the student is not used.

.. math::
    likelihood: & R_m = \log p_m[y] = -CE(z_m, y) \\
    margin: & R_m = p_m[y] - \max_{c \ne y} p_m[c]

p at T = 1. An experiment beside :class:`AgreementReward`: simpler, but it also
rewards on samples that the student has learned already, and a teacher that has
memorised the training labels has the largest reward.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.records import DistillationBatch
from mmkd_rl.registry import REWARDS
from mmkd_rl.weighting.mtkd_rl.reward import Reward, Step


@REWARDS.register_module()
class LikelihoodReward(Reward):
    """log p_m[y], or the margin of the true class.

    Args:
        context: Given by the distiller.
        kind: ``'likelihood'`` or ``'margin'``.
    """

    def __init__(self, context: WeightingContext,
                 kind: Literal['likelihood', 'margin'] = 'likelihood'
                 ) -> None:
        super().__init__(context)
        self.kind = kind

    @torch.no_grad()
    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, M]."""
        rule = self.judge.quality if self.kind == 'likelihood' else \
            self.judge.margin
        return torch.stack(
            [rule(t, batch.truth) for t in batch.teachers], 1)
