r"""The published code's reward (github winycg/MTKD-RL): one for all teachers.

.. math::
    r = -(CE_S + \alpha \sum_m w_l^m D_m + \beta \sum_m w_f^m MSE_m),\quad
    R_m = clip((r - mean(r)) / std(r), 0, 1)

mean and standard deviation over the batch (of all processes), w as the
student's step used them. The published code computes it from the logits before
the update
(``reward_time='before'``). It is the same for all teachers, so it does not
tell which one was good; its updater is :class:`BCEUpdater`. Zero for a batch
of one sample or of equal losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd_rl.records import DistillationBatch
from mmkd_rl.registry import REWARDS
from mmkd_rl.utils.processes import mean_over_processes
from mmkd_rl.weighting.mtkd_rl.reward import Reward, Step


@REWARDS.register_module()
class BatchReward(Reward):
    """The negated loss of a sample, standardised over the batch.

    Args:
        context: Given by the distiller.
    """

    scalar = True

    @torch.no_grad()
    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, M], all columns alike, in [0, 1]."""
        assert step is not None
        loss_B = -self.task.quality(batch.student, batch.truth)
        gaps = batch.gaps
        if gaps.logit is not None:
            loss_B = loss_B + self.logit_weight * (
                step.weights[:, 0] * gaps.logit).sum(1)
        if gaps.feature is not None:
            loss_B = loss_B + self.feature_weight * (
                step.weights[:, 1] * gaps.feature).sum(1)
        centred_B = mean_over_processes(loss_B.mean()) - loss_B
        spread = mean_over_processes(centred_B.square().mean()).sqrt()
        score_B = centred_B / spread.clamp_min(1e-6)
        return score_B.clamp(0, 1).unsqueeze(1).repeat(
            1, len(batch.teachers))
