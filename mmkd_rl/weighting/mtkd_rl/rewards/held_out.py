r"""Effect of a teacher's gradient on one sample on the loss of other samples.

A small step of the student's classifier down D_m(i) changes the cross entropy
of sample j by minus

.. math::
    \langle f_i, f_j \rangle \, \langle \nabla_z CE_j, \nabla_z D_m(i) \rangle

exactly, for the weights of a linear classifier on the feature f (the gradients
are outer products with f). The reward of teacher m on sample i is the mean
over the other samples j of the batch and of a memory of earlier ones,

.. math::
    R_m(i) = \langle \nabla_z D_m(i),\; mean_{j \ne i}
        \cos(f_i, f_j)_+ \nabla_z CE_j \rangle

The label of i itself is not used, so a teacher that has memorised i's label is
rewarded only for what generalises to other samples. Deviations from the exact
term: f is centred over the samples (after a ReLU all features have similar
directions), the cosine replaces the inner product, and only its positive part
(similar samples) is used. Not in the paper; an experiment beside
:class:`AgreementReward`, which is the same with j = i.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.options import ConfigError, Natural
from mmkd_rl.records import DistillationBatch
from mmkd_rl.registry import REWARDS
from mmkd_rl.weighting.mtkd_rl.reward import AgreementReward, Step


@REWARDS.register_module()
class HeldOutReward(AgreementReward):
    """Agreement with the other samples' gradients.

    Args:
        context: Given by the distiller.
        memory: Number of earlier samples that are kept, with the outputs of
            the student at that time; each takes 4 (D + C) bytes.

    Raises:
        ConfigError: The student gives scores for each pixel.
    """

    def __init__(self, context: WeightingContext,
                 memory: Natural = 512) -> None:
        super().__init__(context)
        if any(len(shape) > 1 for shape in context.student.logits):
            raise ConfigError(
                'HeldOutReward compares images by one vector of class scores '
                'each, and the student gives scores for each pixel; use '
                "reward=dict(type='AgreementReward')")
        self.memory = memory
        self._kept: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, M]; zero for a batch of one sample without memory."""
        f_BD = self.task.feature_summary(batch.student, batch.truth).float()
        g_BC, = self.judge.logit_gradient(batch.student, batch.truth)
        f_ND, g_NC = f_BD, g_BC
        if self._kept is not None:
            f_ND = torch.cat([f_BD, self._kept[0]])
            g_NC = torch.cat([g_BC, self._kept[1]])
        if self.memory:
            self._kept = (f_ND[:self.memory].clone(),
                          g_NC[:self.memory].clone())
        size = len(f_BD)
        unit_ND = F.normalize(f_ND - f_ND.mean(0), dim=1)
        alike_BN = (unit_ND[:size] @ unit_ND.T).clamp_min(0)
        alike_BN.fill_diagonal_(0)  # not its own label
        others_BC = alike_BN @ g_NC / max(len(f_ND) - 1, 1)
        pull, = self.pull(batch)
        return self.judge.inner_product(others_BC, pull, batch.truth)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the memory."""
        if self._kept is not None:
            self._kept = (fn(self._kept[0]).float(), fn(self._kept[1]).float())

    def state_dict(self) -> dict:
        """The memory."""
        return {} if self._kept is None else dict(
            features=self._kept[0].cpu(), gradients=self._kept[1].cpu())

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._kept = (state['features'],
                      state['gradients']) if state else None
