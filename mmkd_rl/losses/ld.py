r"""LD (Zheng et al. 2022, arXiv:2102.12252, "Localization Distillation for
Dense Object Detection", Eqs. 3 to 5).

.. math::
    L_m = \frac{T^2}{4 \max(1, N_m)} \sum_x v_m(x) \sum_{e=1}^{4}
    KL(softmax(z_m^e(x) / T) \,\|\, softmax(z_S^e(x) / T)), \quad
    v_m(x) = \max_c \sigma(z_m^{cls}(x)), \quad N_m = \sum_x v_m(x)

z^e(x) are scores of the distances from a location x to edge e of its box, as
heads with generalised focal loss give them. One number per image and teacher,
over all levels.

**Deviation.** The paper distils at the locations that the student's head
assigns to objects, and at those in a region around them. Here each location
counts by the teacher's own confidence, which needs no labels and is large in
both regions. Padding is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_rl.losses.base import DistillationTerm
from mmkd_rl.losses.binary_kd import over_levels
from mmkd_rl.options import ConfigError, NonNegative, Positive
from mmkd_rl.records import Output, OutputSpec, Pair, Pairs, Truth
from mmkd_rl.registry import MODELS


@MODELS.register_module()
class LDLoss(DistillationTerm):
    """Divergence between the distributions of the edges of boxes.

    Args:
        temperature: T; 10 in the paper.
        loss_weight: alpha of MTKD-RL, Eq. (2); applied by the distiller. The
            paper's is 0.25.
    """

    reads = 'logits'

    def __init__(self,
                 temperature: Positive = 10.0,
                 loss_weight: NonNegative = 0.25) -> None:
        super().__init__(loss_weight)
        self.temperature = temperature

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Check that all networks have edges of the same shapes.

        Raises:
            ConfigError: A network has no edges, or a teacher's have other
                shapes than the student's.
        """
        for spec in (student, *teachers):
            if not spec.edges:
                raise ConfigError(
                    f'LDLoss compares distributions of the edges of boxes, '
                    f'which GFL and its kind give with task.scores=True, and '
                    f'{spec.name!r} has none; leave it out')
            if spec.edges != student.edges:
                raise ConfigError(
                    f'LDLoss: teacher {spec.name!r} has edges of the shapes '
                    f'{spec.edges}, and the student {student.edges}; they '
                    'must have the same number of distances (reg_max) and '
                    'see images of one size')

    def align(self, student: Output, teachers: Sequence[Output],
              truth: Truth) -> Pairs:
        """Edges of each level; valid locations count by the teacher's
        confidence."""
        return tuple(
            tuple(Pair(own, theirs, confidence(scores, truth))
                  for own, theirs, scores in zip(
                      student.edges, teacher.edges, teacher.logits))
            for teacher in teachers)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """L_m, [B, M], in float32."""
        return over_levels(pairs, lambda pair: edge_divergence(
            pair, self.temperature))


def confidence(logits: Tensor, truth: Truth) -> Tensor:
    """v_m, zero in padding, [B, H, W].

    Args:
        logits: The teacher's class scores, [B, A C, H, W].
        truth: Valid pixels of the batch.
    """
    valid = truth.valid_at(logits)
    found = logits.float().sigmoid().amax(1)
    # Not only a product: scores of padding may be infinite.
    return found if valid is None else torch.where(
        valid > 0, found, 0.) * valid


def edge_divergence(pair: Pair, temperature: float) -> tuple[Tensor, Tensor]:
    """T^2 sum_x v sum_e KL / 4, and N_m, of one level, [B] each.

    Args:
        pair: Edges [B, 4 N, H, W], with v as ``valid``.
        temperature: T.
    """
    weight = pair.valid
    assert weight is not None
    log_q, log_p = (
        F.log_softmax(torch.where(weight[:, None] > 0, x.float(), 0.)
                      .unflatten(1, (4, -1)) / temperature, 2)
        for x in (pair.student, pair.teacher))
    divergence = (log_p.exp() * (log_p - log_q)).sum(2).mean(1)
    return (temperature**2 * (divergence * weight).flatten(1).sum(1),
            weight.flatten(1).sum(1))
