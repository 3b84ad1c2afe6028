r"""What a teacher itself says of the true class; the student is not asked.

.. math::
    likelihood: & R_m = \log p_m[y] = -CE(z_m, y) \\
    margin: & R_m = p_m[y] - \max_{c \ne y} p_m[c]

p at T = 1. An experiment beside :class:`AgreementReward`: cheaper to grasp,
but it pays on samples that the student has long known, and a teacher that has
learned the training labels by heart earns everything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_rl.agent.reward import Reward, Step
from mmkd_rl.records import DistillationBatch
from mmkd_rl.registry import REWARDS

KINDS = ('likelihood', 'margin')


@REWARDS.register_module()
class LikelihoodReward(Reward):
    """log p_m[y], or its probability's margin.

    Args:
        logit_weight: alpha, given by the distiller; unused.
        feature_weight: beta, given by the distiller; unused.
        temperature: T of the logit loss, given by the distiller; unused.
        kind: ``'likelihood'`` or ``'margin'``.

    Raises:
        ValueError: Another kind.
    """

    def __init__(self, logit_weight: float, feature_weight: float,
                 temperature: float, kind: str = 'likelihood') -> None:
        super().__init__(logit_weight, feature_weight, temperature)
        if kind not in KINDS:
            raise ValueError(f'weighting.reward.kind must be one of {KINDS}, '
                             f'got {kind!r}')
        self.kind = kind

    @torch.no_grad()
    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, M]."""
        z_BMC = torch.stack([t.logits for t in batch.teachers], 1).float()
        if self.kind == 'likelihood':
            return -torch.stack([
                batch.cross_entropy(z, batch.targets)
                for z in z_BMC.unbind(1)
            ], 1)
        # Of soft targets the likeliest class counts as the true one.
        y_B = batch.targets if batch.targets.ndim == 1 else \
            batch.targets.argmax(1)
        true_B1C = F.one_hot(y_B, z_BMC.shape[2]).bool().unsqueeze(1)
        p_BMC = z_BMC.softmax(2)
        return p_BMC.masked_fill(~true_B1C, 0.).sum(2) - p_BMC.masked_fill(
            true_B1C, 0.).amax(2)
