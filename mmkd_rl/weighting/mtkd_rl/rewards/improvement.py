r"""Decrease of the student's cross entropy, divided among the teachers.

.. math:: \Delta = CE_S^{before} - CE_S^{after}

per sample; needs the second forward pass (``reward_time='after'``). Delta is
one number for each sample and is divided among M teachers:

- ``share``: R_m = (Delta - mean(Delta)) (w_m - mean(w_m)), means over the
  batch: positive for a teacher with more weight than usual on samples that
  improved more than usual;
- ``regression``: R_m = beta_m, the ridge regression of Delta on the weights
  over the batch: the same on all samples.

Separate for logits and features, [B, 2, M]. The weights must vary between
samples; in the warm-up all rewards are zero. As the weights are not random but
depend on the teachers' confidence and distance, and one step is taken for the
whole batch, this reward is noisy. Not in the paper.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.options import Positive
from mmkd_rl.records import DistillationBatch
from mmkd_rl.registry import REWARDS
from mmkd_rl.weighting.mtkd_rl.reward import Reward, Step


@REWARDS.register_module()
class ImprovementReward(Reward):
    """Change of the student's cross entropy, divided among the teachers.

    Args:
        context: Given by the distiller.
        attribution: ``'share'`` or ``'regression'``.
        ridge: Ridge of the regression, added to the variances of the weights.
    """

    only = 'after'

    def __init__(self, context: WeightingContext,
                 attribution: Literal['share', 'regression'] = 'share',
                 ridge: Positive = 1e-3) -> None:
        super().__init__(context)
        self.attribution, self.ridge = attribution, ridge

    @torch.no_grad()
    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, 2, M]."""
        assert step is not None
        gained_B = step.ce + self.task.quality(batch.student, batch.truth)
        gained_B = gained_B - gained_B.mean()
        w_2BM = (step.weights - step.weights.mean(0)).transpose(0, 1).float()
        if self.attribution == 'share':
            return (w_2BM * gained_B[None, :, None]).transpose(0, 1)
        size, count = w_2BM.shape[1:]
        moments_2MM = w_2BM.mT @ w_2BM / size + self.ridge * torch.eye(
            count, device=w_2BM.device)
        beta_2M = torch.linalg.solve(
            moments_2MM, (w_2BM * gained_B[None, :, None]).mean(1))
        return beta_2M.expand(size, -1, -1).contiguous()
