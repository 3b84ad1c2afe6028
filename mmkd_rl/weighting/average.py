"""AVER: every teacher weighs 1 / M (You et al. 2017; MTKD-RL's baseline)."""

from __future__ import annotations

from mmkd_rl.records import DistillationBatch, TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.weighting.base import WeightingStrategy, equal_weights


@WEIGHTINGS.register_module()
class AverageWeighting(WeightingStrategy):
    """Equal weights; also the published scale is 1 / M."""

    needs_classes = False
    needs_similarity = False

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """1 / M, [B, M] each."""
        weights = equal_weights(batch, self.num_teachers)
        return TeacherWeights(weights, weights)
