r"""Relations between samples (RKD, Park et al. 2019), with a mixture of the
teachers' relations as target (AMTML-KD, Liu, Zhang and Wang 2020).

.. math:: L = Huber(\psi(S), \sum_m \bar w_m \psi(T_m))

on features pooled over space. psi of the distance loss are the distances of
all pairs of samples, divided by their mean; psi of the angle loss are the
cosines of the angles of triplets. w-bar is the batch's mean of the feature
weights, without gradient.

The target is a mixture, so the loss is no sum of one loss for each teacher;
these terms are derived from :class:`MixtureTerm`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mmkd_rl.losses.base import MixtureTerm
from mmkd_rl.options import NonNegative
from mmkd_rl.records import Output, TeacherWeights, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.pooling import pooled_features

_EPSILON = 1e-12


class _RelationLoss(MixtureTerm):
    """Huber loss between the student's relations and the teachers'."""

    reads = 'features'

    @abstractmethod
    def relate(self, x_BD: Tensor) -> Tensor:
        """psi of features [B, D], a vector with one number for each
        relation."""

    def forward(self, student: Output, teachers: Sequence[Output],
                truth: Truth, weights: TeacherWeights) -> Tensor:
        """The term; zero where a batch is too small to have relations."""
        with torch.autocast(weights.feature.device.type, enabled=False):
            student_P = self.relate(_embedding(student, truth))
            if not student_P.numel():
                return student_P.sum()
            with torch.no_grad():
                mean_M = weights.feature.mean(0)
                target_P = _average(
                    mean_M / mean_M.sum().clamp_min(_EPSILON),
                    [self.relate(_embedding(t, truth)) for t in teachers])
            return self.weight * F.smooth_l1_loss(student_P, target_P)


@MODELS.register_module()
class DistanceRelationLoss(_RelationLoss):
    """Compares the distances of pairs of images.

    Args:
        loss_weight: Weight of the term; applied here. Published: 1.
    """

    name = 'loss_distance'

    def relate(self, x_BD: Tensor) -> Tensor:
        """See :func:`distances`."""
        return distances(x_BD)


@MODELS.register_module()
class AngleRelationLoss(_RelationLoss):
    """Compares the angles of triplets of images.

    Args:
        loss_weight: Weight of the term; applied here. Published: 2.
        samples: Number of images of a batch from which triplets are made, at
            least 3; the number of triplets grows with its cube.
    """

    name = 'loss_angle'

    def __init__(self, loss_weight: NonNegative = 2.,
                 samples: Annotated[int, Field(ge=3)] = 16) -> None:
        super().__init__(loss_weight)
        self.samples = samples

    def relate(self, x_BD: Tensor) -> Tensor:
        """See :func:`angles`."""
        return angles(x_BD[:self.samples])


def _embedding(output: Output, truth: Truth) -> Tensor:
    """See :func:`pooled_features`; averaged in float32 or better."""
    return pooled_features(output.map(Tensor.float), truth)


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
    # Not `normalize`, which has a huge gradient for equal points.
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
