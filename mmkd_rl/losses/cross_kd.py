r"""CrossKD (Wang et al. 2024, arXiv:2306.11369, "CrossKD: Cross-Head Knowledge
Distillation for Object Detection", Eqs. 4 and 5).

.. math:: L_m = D\big( h_m(r_m(F_S)),\; h_m(F_m) \big)

h_m is the teacher's own head, frozen: what it predicts from the student's
features is compared with what it predicts from its own, so that the student's
head need not serve the labels and the teacher at once. D is the binary
divergence of :class:`BinaryKDLoss` for classes, and for heads that give them
that of :class:`LDLoss` for the edges of boxes, as in the paper for GFL.

Deviations: the student's features enter the teacher's head at its start (i = 0
in the paper, which prefers the third layer, and needs heads of one width
there), through a projector; boxes of heads without distributions are not
compared (the paper compares them by GIoU); the divergence and its denominator
are those of :class:`BinaryKDLoss`, where the paper has quality focal loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkd_rl.losses.base import FeatureTerm
from mmkd_rl.losses.binary_kd import binary_divergence, over_levels
from mmkd_rl.losses.class_map import without_unknown
from mmkd_rl.losses.ld import confidence, edge_divergence
from mmkd_rl.options import ConfigError, NonNegative, Positive
from mmkd_rl.records import Output, OutputSpec, Pair, Pairs, Truth
from mmkd_rl.registry import MODELS


@MODELS.register_module()
class CrossKDLoss(FeatureTerm):
    """Divergence between a teacher's predictions from the student's features
    and from its own.

    Args:
        temperature: T of the classes.
        gamma: See :class:`BinaryKDLoss`.
        edge_temperature: T of the edges.
        edge_weight: Weight of the edges beside the classes.
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller.
    """

    def __init__(self,
                 temperature: Positive = 1.0,
                 gamma: NonNegative = 1.0,
                 edge_temperature: Positive = 1.0,
                 edge_weight: NonNegative = 1.0,
                 loss_weight: NonNegative = 1.0) -> None:
        super().__init__(loss_weight)
        self.temperature, self.gamma = float(temperature), gamma
        self.edge_temperature = edge_temperature
        self.edge_weight = edge_weight

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Make the projectors.

        Raises:
            ConfigError: A teacher has no class scores that are read, or its
                head reads levels that the student has not.
        """
        for spec in teachers:
            if not spec.logits:
                raise ConfigError(
                    f"CrossKDLoss runs the teachers' heads, and class scores "
                    f'of {spec.name!r} are not read; it needs dense heads '
                    'and task.scores=True')
            if len(spec.features) != len(spec.logits):
                raise ConfigError(
                    f'CrossKDLoss: the head of {spec.name!r} reads '
                    f'{len(spec.logits)} levels, of which the student has '
                    f'{len(spec.features)}; leave it out')
        super().build(student, teachers, projector)
        #: Levels of class scores of each teacher; edges follow them.
        self._counts = [len(spec.logits) for spec in teachers]
        for m, spec in enumerate(teachers):
            # A buffer, so that it follows the term to its device.
            self.register_buffer(f'known{m}', spec.known, persistent=False)

    def align(self, student: Output, teachers: Sequence[Output],
              truth: Truth) -> Pairs:
        """Predictions of each teacher's head: classes of all levels, then
        edges of all levels."""
        found = []
        for m, (levels, teacher) in enumerate(zip(
                super().align(student, teachers, truth), teachers)):
            crossed = self.predict(m, [pair.student for pair in levels])
            found.append((
                *(Pair(*self._known_alone(own, theirs, m),
                       truth.valid_at(own))
                  for own, theirs in zip(crossed.logits, teacher.logits)),
                *(Pair(own, theirs, confidence(scores, truth))
                  for own, theirs, scores in zip(
                      crossed.edges, teacher.edges, teacher.logits))))
        return tuple(found)

    def _known_alone(self, crossed: Tensor, theirs: Tensor,
                     teacher: int) -> tuple[Tensor, Tensor]:
        """See :func:`without_unknown`: a teacher's head has no scores for
        classes that the teacher was not trained on."""
        known_C = getattr(self, f'known{teacher}')
        return (crossed, theirs) if known_C is None else without_unknown(
            crossed, theirs, known_C)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """L_m, [B, M], in float32."""
        columns = []
        for levels, count in zip(pairs, self._counts):
            loss = over_levels(
                (levels[:count], ), lambda pair: binary_divergence(
                    pair, self.temperature, self.gamma))
            if levels[count:]:
                loss = loss + self.edge_weight * over_levels(
                    (levels[count:], ), lambda pair: edge_divergence(
                        pair, self.edge_temperature))
            columns.append(loss)
        return torch.cat(columns, 1)
