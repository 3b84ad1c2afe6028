r"""EB-KD (Kwon et al., ICASSP 2020): confident teachers weigh more.

.. math::
    H_m = -\sum_c p_m(c) \ln p_m(c), \quad p_m = softmax(z_m), \qquad
    w_m \propto 1 - H_m / \sum_j H_j

one weight per sample and teacher, the same for logits and features (the paper
distils logits only). The temperature is one, whatever the logit loss's. The
true class is not used: a confidently wrong teacher has the largest weight.

Not given in the paper: 0 ln 0 = 0; if all entropies are zero the weights are
equal; M = 1, where the formula gives 0, gives w = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd_rl.records import DistillationBatch, TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.weighting.base import WeightingStrategy


@WEIGHTINGS.register_module()
class EBKD(WeightingStrategy):
    """Weights from the entropy of the teachers' predictions.

    Args:
        context: Given by the distiller.
        scale: ``'unit'``: weights are divided by M - 1, so that they sum to
            one; ``'paper'``: 1 - H_m / sum_j H_j, which sum to M - 1.
    """

    needs_labels = True
    needs_similarity = False

    @torch.no_grad()
    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, detached, in float32."""
        task = self.judge
        entropy_BM = torch.stack(
            [task.entropy(t, batch.truth) for t in batch.teachers], 1)
        weights = self._weigh(entropy_BM)
        return TeacherWeights(weights, weights)

    def _weigh(self, entropy_BM: Tensor) -> Tensor:
        if self.num_teachers == 1:
            return torch.ones_like(entropy_BM)
        total_B1 = entropy_BM.sum(1, keepdim=True)
        share_BM = torch.where(total_B1 > 0, entropy_BM / total_B1,
                               1 / self.num_teachers)
        weights_BM = 1 - share_BM
        return weights_BM if self.scale == 'paper' else \
            weights_BM / (self.num_teachers - 1)
