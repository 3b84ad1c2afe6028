r"""AMTML-KD (Liu, Zhang and Wang, Neurocomputing 2020): a latent factor for
each teacher, and one integrated target.

.. math::
    a_m = W^T (\theta_m \odot u), \quad w = softmax_m(a), \quad
    p = \sum_m w_m p_m, \; p_m = softmax(z_m / T), \qquad
    L = \alpha T^2 KL(p \Vert p_S) + L_{dist} + L_{angle}
        + 0.1 (\Vert W \Vert^2 + \Vert \theta \Vert^2)

u is the student's feature, max-pooled over space, [B, D]; W, [D], and theta,
[M, D], are trained with the student.

**The mixture.** The distiller adds alpha sum_m w_m D_m with D_m = T^2
KL(p_m || p_S). With H the entropy and sum_m w_m = 1,

.. math::
    \sum_m w_m KL(p_m \Vert q)
    = -\sum_m w_m H(p_m) - \sum_c p(c) \ln q(c)
    = KL(p \Vert q) + H(p) - \sum_m w_m H(p_m),

and the last two terms are the Jensen-Shannon divergence JSD_w of the teachers.
So weights with gradient, and a further term -alpha T^2 JSD_w, give the KL of
the mixture with all its gradients: those of q are the same for both targets;
those of w differ, and reach the student through u. This holds for
:class:`KDLoss`; with another logit loss the term is left out, and the
teachers' losses are mixed instead of their targets.

**Relations** of distances and angles, see losses/relation.py, belong to the
method; other strategies can use these terms, too.

Not given in the paper: theta starts at zero, so that all weights are equal,
and W with variance 1 / D; features have the same weights, detached; the
weights of the relation terms, 1 and 2, have RKD's ratio. Weights sum to one in
the paper, so both scales are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkd_rl.context import WeightingContext
from mmkd_rl.losses import (
    AngleRelationLoss,
    DistanceRelationLoss,
    KDLoss,
    MixtureTerm,
)
from mmkd_rl.losses.base import stacked_levels
from mmkd_rl.options import ConfigError, NonNegative
from mmkd_rl.records import (
    DistillationBatch,
    Output,
    TeacherWeights,
    Truth,
)
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.utils.pooling import masked_mean
from mmkd_rl.weighting.base import Scale, WeightingStrategy

_EPSILON = 1e-12


@WEIGHTINGS.register_module()
class AMTMLKD(WeightingStrategy):
    """Weights from trained latent factors.

    Args:
        context: Given by the distiller.
        distance_weight: Weight of the distance relations; 0: off.
        angle_weight: Weight of the angle relations; 0: off.
        relation_samples: Number of images of a batch from which triplets are
            made, at least 3; the number of triplets grows with its cube.
        regularization: Weight of the norms of W and theta; 0.1 in the paper.
        scale: No effect: the paper's weights sum to one.
    """

    needs_classes = False
    needs_similarity = False

    def __init__(self,
                 context: WeightingContext,
                 distance_weight: NonNegative = 1.0,
                 angle_weight: NonNegative = 2.0,
                 relation_samples: Annotated[int, Field(ge=3)] = 16,
                 regularization: NonNegative = 0.1,
                 scale: Scale = 'unit') -> None:
        super().__init__(context, scale)
        if any(t.known is not None for t in context.teachers) and \
                len(context.student.logits[0]) > 1:
            raise ConfigError(
                'AMTMLKD mixes the predictions of all teachers at each pixel, '
                'but one with a class_map has none at pixels of other '
                'classes; use another weighting, such as '
                "dict(type='AverageWeighting')")
        self.relations = nn.ModuleList(
            term for term in (
                DistanceRelationLoss(distance_weight),
                AngleRelationLoss(angle_weight, relation_samples))
            if term.loss_weight)
        self.regularization = regularization
        size = sum(context.student.channels)
        #: W, [D].
        self.projection = nn.Parameter(torch.randn(size) / size**.5)
        #: theta, [M, D].
        self.latent = nn.Parameter(torch.zeros(self.num_teachers, size))

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, in float32; those of logits with gradient,
        those of features without."""
        with torch.autocast(batch.device.type, enabled=False):
            u_BD = torch.cat([
                _max_over_space(f.float(), batch.truth)
                for f in batch.student.features
            ], 1)
            scores_BM = u_BD @ (self.projection * self.latent).float().T
            weights_BM = scores_BM.softmax(1)
        return TeacherWeights(weights_BM, weights_BM.detach())

    def mixture_terms(self) -> tuple[MixtureTerm, ...]:
        """The Jensen-Shannon terms, the relations, and the norms of W and
        theta."""
        return (*(MixedTarget(t) for t in self.context.reading('logits')
                  if isinstance(t, KDLoss)), *self.relations,
                LatentNorm(self))


class MixedTarget(MixtureTerm):
    """-alpha T^2 JSD_w, which turns the weighted sum of a KD term into the
    divergence from the teachers' mixture.

    Args:
        term: The KD term.
    """

    name = 'loss_mixture'

    def __init__(self, term: KDLoss) -> None:
        super().__init__(term.loss_weight)
        # In a tuple: the term is a child of another module.
        self._term = (term, )

    def forward(self, student: Output, teachers: Sequence[Output],
                truth: Truth, weights: TeacherWeights) -> Tensor:
        """The mean over the batch, with gradient to the weights."""
        term, = self._term
        with torch.autocast(weights.logit.device.type, enabled=False):
            pairs = term.align(student, teachers, truth)
            divergence = [
                truth.mean(_jensen_shannon(
                    teachers_BMC, weights.logit, truth.valid_at(student_BC),
                    term.temperature))
                for student_BC, teachers_BMC, _ in stacked_levels(pairs)
            ]
            return -term.weight * term.temperature**2 * torch.stack(
                divergence).mean()


class LatentNorm(MixtureTerm):
    """0.1 (|W|^2 + |theta|^2).

    Args:
        strategy: The strategy with W and theta.
    """

    name = 'loss_latent'

    def __init__(self, strategy: AMTMLKD) -> None:
        super().__init__(strategy.regularization)
        self._strategy = (strategy, )

    def forward(self, student: Output, teachers: Sequence[Output],
                truth: Truth, weights: TeacherWeights) -> Tensor:
        """Also with weight zero: in distributed training every parameter must
        have a gradient."""
        strategy, = self._strategy
        return self.loss_weight * (strategy.projection.square().sum() +
                                   strategy.latent.square().sum())


def _max_over_space(feature: Tensor, truth: Truth) -> Tensor:
    """Maximum over valid pixels, [B, D]; 0 for an image without any."""
    if feature.ndim < 3:
        return feature
    valid = truth.valid_at(feature)
    if valid is None:
        return feature.flatten(2).amax(2)
    counts = valid.flatten(1).unsqueeze(1) > 0
    largest = feature.flatten(2).masked_fill(~counts, -torch.inf).amax(2)
    return torch.where(counts.any(2), largest, 0.)


def _jensen_shannon(teachers_BMC: Tensor, weights_BM: Tensor,
                    valid: Tensor | None, temperature: float) -> Tensor:
    """JSD_w of the teachers' predictions, [B]; for dense logits the mean over
    valid pixels."""
    p_BMC = (teachers_BMC.float() / temperature).softmax(2)
    w_BM1 = weights_BM.reshape(*weights_BM.shape, *[1] * (p_BMC.ndim - 2))
    # One, unless teachers that were not trained on a class are left out.
    total_B1 = w_BM1.sum(1)
    mixture_BC = (w_BM1 * p_BMC).sum(1) / total_B1.clamp_min(_EPSILON)
    divergence = total_B1.squeeze(1) * _entropy(mixture_BC, 1) - (
        w_BM1.squeeze(2) * _entropy(p_BMC, 2)).sum(1)
    return masked_mean(divergence, valid) if divergence.ndim > 1 else \
        divergence


def _entropy(p: Tensor, dim: int) -> Tensor:
    # Not `entr`, whose gradient at 0 is infinite; weights times zero
    # probabilities would then be NaN.
    return -(p * p.clamp_min(_EPSILON).log()).sum(dim)
