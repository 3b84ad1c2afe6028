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

and the last two terms are the Jensen-Shannon divergence JSD_w of the
teachers. So weights that keep their gradient, and -alpha T^2 JSD_w as a term
of its own, make the mixture's KL with all its gradients: in q the two targets
agree anyway, in w they do not, and w, by u, reaches the student too. This
holds for :class:`KDLoss`; with another logit loss the term is left out, and
teachers' losses are integrated instead of their targets.

**Relations.** Between samples, after RKD (Park et al. 2019), on features
pooled over space: distances of all pairs, divided by their mean, and cosines
of the angles of triplets; Huber loss between the student's and the weighted
mean of the teachers', whose weights are the batch's mean and detached.
Triplets are taken of the first ``relation_samples`` images only.

Settled here: theta begins at zero, so that all teachers weigh the same, and W
with variance 1 / D; features weigh the same, detached; the weights of the
relation terms, 1 and 2, have RKD's ratio. Weights sum to one in the paper too,
so both scales are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_rl.losses import KDLoss
from mmkd_rl.records import DistillationBatch, TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.weighting.base import WeightingContext, WeightingStrategy

_EPSILON = 1e-12


@WEIGHTINGS.register_module()
class AMTMLKD(WeightingStrategy):
    """Weights from trained latent factors.

    Args:
        context: Given by the distiller.
        distance_weight: Of the relation of pairs; 0: off.
        angle_weight: Of the relation of triplets; 0: off.
        relation_samples: Images of a batch that make triplets; their number
            grows with its cube.
        regularization: Of W and theta; 0.1 in the paper.
        scale: Both are the paper's: weights sum to one.

    Raises:
        ValueError: A negative weight, fewer than three relation samples, or
            another scale.
    """

    needs_classes = False
    needs_similarity = False

    def __init__(self,
                 context: WeightingContext,
                 distance_weight: float = 1.0,
                 angle_weight: float = 2.0,
                 relation_samples: int = 16,
                 regularization: float = 0.1,
                 scale: str = 'unit') -> None:
        super().__init__(context, scale)
        for name, value in (('distance_weight', distance_weight),
                            ('angle_weight', angle_weight),
                            ('regularization', regularization)):
            if not value >= 0:
                raise ValueError(f'weighting.{name} must be >= 0, got {value}')
        if relation_samples < 3:
            raise ValueError('weighting.relation_samples must be >= 3, the '
                             f'corners of an angle; got {relation_samples}')
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.relation_samples = relation_samples
        self.regularization = regularization
        size = context.student.channels
        #: W, [D].
        self.projection = nn.Parameter(torch.randn(size) / size**.5)
        #: theta, [M, D].
        self.latent = nn.Parameter(torch.zeros(self.num_teachers, size))

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, in float32; the logits' with gradient, the
        features' without."""
        with torch.autocast(batch.student.logits.device.type, enabled=False):
            feature = batch.student.feature.float()
            u_BD = feature.flatten(2).amax(2) if feature.ndim > 2 else feature
            scores_BM = u_BD @ (self.projection * self.latent).float().T
            weights_BM = scores_BM.softmax(1)
        return TeacherWeights(weights_BM, weights_BM.detach())

    def losses(self, batch: DistillationBatch,
               weights: TeacherWeights) -> dict[str, Tensor]:
        """``loss_mixture``, minus alpha T^2 JSD, which makes the target a
        mixture; ``loss_distance`` and ``loss_angle``; ``loss_latent``."""
        with torch.autocast(batch.student.logits.device.type, enabled=False):
            losses = {}
            if isinstance(self.context.logit_loss, KDLoss):
                losses['loss_mixture'] = -self._jensen_shannon(batch, weights)
            if self.distance_weight or self.angle_weight:
                student_BD = batch.student.embedding.float()
                teachers = [t.embedding.float() for t in batch.teachers]
            if self.distance_weight:
                losses['loss_distance'] = self.distance_weight * _relation(
                    student_BD, teachers, weights, distances)
            if self.angle_weight:
                count = self.relation_samples
                losses['loss_angle'] = self.angle_weight * _relation(
                    student_BD, teachers, weights,
                    lambda x_BD: angles(x_BD[:count]))
            # Also at weight zero: every parameter must have a gradient when
            # training is distributed.
            losses['loss_latent'] = self.regularization * (
                self.projection.square().sum() + self.latent.square().sum())
            return losses

    def _jensen_shannon(self, batch: DistillationBatch,
                        weights: TeacherWeights) -> Tensor:
        """alpha T^2 JSD_w, the batch's mean."""
        temperature = self.context.temperature
        p_BMC = torch.stack([
            (t.logits.float() / temperature).softmax(1)
            for t in batch.teachers
        ], 1)
        w_BM1 = weights.logit.reshape(*weights.logit.shape,
                                      *[1] * (p_BMC.ndim - 2))
        # One, unless teachers that do not know a class were left out.
        total_B1 = w_BM1.sum(1)
        mixture_BC = (w_BM1 * p_BMC).sum(1) / total_B1.clamp_min(_EPSILON)
        divergence = total_B1.squeeze(1) * _entropy(mixture_BC, 1) - (
            w_BM1.squeeze(2) * _entropy(p_BMC, 2)).sum(1)
        assert self.context.logit_weight is not None
        return self.context.logit_weight * temperature**2 * divergence.mean()


def _entropy(p: Tensor, dim: int) -> Tensor:
    # Not `entr`, whose gradient at 0 is infinite; weights times zero
    # probabilities would then be NaN.
    return -(p * p.clamp_min(_EPSILON).log()).sum(dim)


def _relation(student_BD: Tensor, teachers: Sequence[Tensor],
              weights: TeacherWeights,
              relate: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean Huber loss between the student's relations and the teachers'
    weighted ones; zero where a batch is too small to have any."""
    student_P = relate(student_BD)
    if not student_P.numel():
        return student_P.sum()
    with torch.no_grad():
        mean_M = weights.feature.mean(0)
        target_P = _average(mean_M / mean_M.sum().clamp_min(_EPSILON),
                            [relate(t_BD) for t_BD in teachers])
    return F.smooth_l1_loss(student_P, target_P)


def _average(weights_M: Tensor, values: Sequence[Tensor]) -> Tensor:
    return (weights_M[:, None] * torch.stack(list(values))).sum(0)


def distances(x_BD: Tensor) -> Tensor:
    """Distances of all pairs divided by their mean, [B (B - 1) / 2]."""
    pairs = F.pdist(x_BD)
    return pairs / pairs.mean().clamp_min(_EPSILON) if len(pairs) else pairs


def angles(x_BD: Tensor) -> Tensor:
    """Cosine of the angle at j between i and k, for all i < k and j other
    than both, [B (B - 1) (B - 2) / 2]; zero where two of them are the same
    point."""
    difference_BBD = x_BD - x_BD[:, None]
    length_BB1 = torch.linalg.vector_norm(difference_BBD, dim=2, keepdim=True)
    # Not `normalize`, whose gradient at the same point is huge.
    edges_BBD = difference_BBD / torch.where(length_BB1 > _EPSILON,
                                             length_BB1, torch.inf)
    cosines_BBB = edges_BBD @ edges_BBD.transpose(1, 2)
    return cosines_BBB.flatten()[_triplets(len(x_BD), x_BD.device)]


@lru_cache(maxsize=8)
def _triplets(count: int, device: torch.device) -> Tensor:
    """Flat indices of (j, i, k)."""
    index = [(j * count + i) * count + k for j in range(count)
             for i, k in combinations(range(count), 2) if j not in (i, k)]
    return torch.tensor(index, dtype=torch.long, device=device)
