r"""AE-KD (Du et al., NeurIPS 2020): the direction on which teachers agree.

.. math::
    \min_\alpha \tfrac12 \Vert \sum_m \alpha_m g_m \Vert^2, \quad
    \sum_m \alpha_m = 1, \; 0 \le \alpha_m \le C, \qquad
    g_m = \nabla_{z_S} \sum_i D_m^i

The weights of a multi-objective step, computed at the student's logits. C is
the upper bound of a weight: at 1 / M all weights are equal, at 1 a single
teacher may have all the weight. The weights are computed for each batch (of
all processes); all its samples have the same. They sum to one in the paper, so
both scales are the same.

The gradients stop at the logits: nothing is accumulated in a parameter, no
backward pass through the student is added, and any logit loss can be used. By
default g_m holds the gradients of all samples, [B C]; the published code
averages over samples first, [C] (``average_gradients=True``), and can scale
g_m to unit length and divide the weights by that length (``normalize=True``).
With class maps, images of classes that teacher m was not trained on are left
out of g_m.

The quadratic programme is solved exactly on the device, without
synchronisation: each of the 3^M cases, in which every weight is 0, C or
between, is a linear system, and the best feasible solution is the minimum.
More than five teachers are solved by scikit-learn's ``OneClassSVM``
(nu = 1 / (C M)), as in the published code, at about three times the cost for
M = 4. A ridge of 1e-6 of the mean square makes the solution unique: equal
teachers have equal weights.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Literal

import torch
from sklearn.svm import OneClassSVM
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.options import ConfigError, Positive
from mmkd_rl.records import DistillationBatch, TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.utils.processes import mean_over_processes, sum_over_processes
from mmkd_rl.weighting.base import (
    Scale,
    WeightingStrategy,
    equal_weights,
    require_terms,
)

_MAX_ENUMERATED = 5
_RIDGE = 1e-6
_TOLERANCE = 1e-8


@WEIGHTINGS.register_module()
class AEKD(WeightingStrategy):
    """Weights from the teachers' gradients.

    Args:
        context: Given by the distiller.
        C: Upper bound of a weight; not used with one teacher.
        feature: Weights of the features: ``'same'``: those of the logits;
            ``'own'``: from the gradients of the feature losses at the
            student's feature (AE-KD-F of the paper; costs M backward passes
            through projectors). Without logit losses always ``'own'``.
        average_gradients: Average gradients over the samples first.
        normalize: Compare gradients of unit length.
        scale: No effect: the paper's weights sum to one.

    Raises:
        ConfigError: C is below 1 / M, or no term compares the student with
            each teacher.
    """

    needs_classes = False
    needs_similarity = False

    def __init__(self,
                 context: WeightingContext,
                 C: Positive = 0.6,
                 feature: Literal['same', 'own'] = 'same',
                 average_gradients: bool = False,
                 normalize: bool = False,
                 scale: Scale = 'unit') -> None:
        super().__init__(context, scale)
        require_terms(context, type(self))
        count = self.num_teachers
        if count > 1 and C < 1 / count - _TOLERANCE:
            raise ConfigError(
                'C', f'must be >= 1 / {count}, one over the number of '
                f'teachers, or no weights sum to one; got {C}')
        self.C = C
        self.feature = feature
        self.average_gradients = average_gradients
        self.normalize = normalize

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, detached, in float32; equal where there is
        no gradient (evaluation, one teacher)."""
        gaps, student = batch.gaps, batch.student
        logit_BM = feature_BM = None
        if gaps.logit is not None:
            # Gaps that are not distilled have no gradient.
            coverage_BM = batch.class_coverage
            distilled_BM = gaps.logit if coverage_BM is None else \
                gaps.logit * coverage_BM
            logit_BM = self._weigh(batch, distilled_BM, student.predictions)
        if gaps.feature is not None and (logit_BM is None or
                                         self.feature == 'own'):
            feature_BM = self._weigh(batch, gaps.feature, student.features)
        if logit_BM is None:
            logit_BM = feature_BM
        assert logit_BM is not None
        return TeacherWeights(
            logit_BM, logit_BM if feature_BM is None else feature_BM)

    def _weigh(self, batch: DistillationBatch, gap_BM: Tensor,
               at: tuple[Tensor, ...]) -> Tensor:
        """Weights, [B, M], of losses by their gradients at all levels."""
        equal_BM = equal_weights(batch, self.num_teachers)
        if self.num_teachers == 1 or not gap_BM.requires_grad or not all(
                t.requires_grad for t in at):
            return equal_BM
        # Gradient of the sum: that of the mean may underflow in half
        # precision, and the weights do not depend on the scale.
        gradients = [
            torch.autograd.grad(gap.sum(), at, retain_graph=True,
                                allow_unused=True, materialize_grads=True)
            for gap in gap_BM.unbind(1)
        ]
        with torch.no_grad(), torch.autocast(
                equal_BM.device.type, enabled=False):
            return self._solve([
                torch.cat([self._row(level.float()) for level in levels])
                for levels in gradients
            ]).to(equal_BM).expand_as(equal_BM)

    def _row(self, gradient: Tensor) -> Tensor:
        """One level's gradient as a vector."""
        return (gradient.mean(0) if self.average_gradients else
                gradient).flatten()

    def _solve(self, gradients: list[Tensor]) -> Tensor:
        """alpha, [M], in float64."""
        rows = torch.stack(gradients)
        if self.average_gradients:
            rows = mean_over_processes(rows)
        gram = (rows @ rows.T).double()
        if not self.average_gradients:
            # Inner products of the gradients of all processes' samples.
            gram = sum_over_processes(gram)
        length = gram.diagonal().sqrt()
        if self.normalize:
            # A teacher with zero gradient gets the largest length, or division
            # by a small one would give it all the weight.
            length = torch.where(length > 0, length, length.amax())
            gram = gram / (length.outer(length))
        alpha = minimum_norm(gram, self.C)
        if self.normalize:
            alpha = alpha / length
            alpha = alpha / alpha.sum()
        # Equal weights if gradients are zero or overflowed.
        return torch.where(alpha.isfinite().all(), alpha, 1 / len(alpha))


def minimum_norm(gram_MM: Tensor, C: float) -> Tensor:
    """argmin of alpha^T G alpha / 2, sum one, 0 <= alpha <= C, [M]; equal
    where G is zero.

    Args:
        gram_MM: Positive semidefinite, in float64.
        C: At least 1 / M.
    """
    count = len(gram_MM)
    if C * count <= 1 + _TOLERANCE:
        return torch.full_like(gram_MM[0], 1 / count)
    mean = gram_MM.diagonal().mean()
    scaled_MM = gram_MM / torch.where(mean > 0, mean, 1.)
    scaled_MM = scaled_MM + _RIDGE * _eye(scaled_MM)
    if count > _MAX_ENUMERATED:
        return _by_svm(scaled_MM, C)
    return _by_enumeration(scaled_MM, C)


def _by_enumeration(gram_MM: Tensor, C: float) -> Tensor:
    """The best of the stationary points, one for each set P of free
    weights and each set of weights at C: G_PP alpha_P + G_P. alpha_rest =
    mu, sum alpha = 1."""
    count = len(gram_MM)
    free_PM, fixed_PM = _patterns(count, C, gram_MM.device)
    patterns = len(free_PM)
    # Rows: a free weight's stationarity or a fixed one's value, then the sum.
    # Where nothing is free mu has no equation but mu = 1.
    top = torch.where(free_PM[..., None] > 0, gram_MM, _eye(gram_MM))
    top = torch.cat([top, -free_PM[..., None]], 2)
    none_P1 = (free_PM.sum(1, keepdim=True) == 0).to(gram_MM)
    sums = torch.cat([(1 - none_P1).expand(-1, count), none_P1], 1)
    matrix = torch.cat([top, sums[:, None]], 1)
    right = torch.cat([fixed_PM, fixed_PM.new_ones(patterns, 1)], 1)
    # Not `solve`, which synchronises to check for errors.
    alpha_PM = torch.linalg.solve_ex(matrix, right)[0][:, :count]
    feasible_P = ((alpha_PM > -_TOLERANCE) &
                  (alpha_PM < C + _TOLERANCE)).all(1)
    value_P = ((alpha_PM @ gram_MM) * alpha_PM).sum(1)
    best = torch.where(feasible_P, value_P, torch.inf).argmin()
    alpha_M = alpha_PM.index_select(0, best[None])[0].clamp(0, C)
    return alpha_M / alpha_M.sum()


@lru_cache(maxsize=8)
def _patterns(count: int, C: float,
              device: torch.device) -> tuple[Tensor, Tensor]:
    """Which weights are free, 0 or 1, and the values of the others, [P, M]
    both; only patterns in which a sum of one is possible."""
    free, fixed = [], []
    for states in product((0, 1, 2), repeat=count):
        rest = 1 - C * states.count(2)
        if -_TOLERANCE <= rest <= C * states.count(1) + _TOLERANCE:
            free.append([float(s == 1) for s in states])
            fixed.append([C * (s == 2) for s in states])
    return (torch.tensor(free, dtype=torch.float64, device=device),
            torch.tensor(fixed, dtype=torch.float64, device=device))


def _eye(like_MM: Tensor) -> Tensor:
    return torch.eye(len(like_MM), dtype=like_MM.dtype, device=like_MM.device)


def _by_svm(gram_MM: Tensor, C: float) -> Tensor:
    """Solve by libsvm, whose weights sum to nu M and are at most 1."""
    count = len(gram_MM)
    alpha_M = torch.zeros(count, dtype=torch.float64)
    gram = gram_MM.cpu().numpy()
    if not torch.as_tensor(gram).isfinite().all():
        return gram_MM.new_full((count, ), torch.nan)
    machine = OneClassSVM(
        kernel='precomputed', nu=min(1., 1 / (C * count)), tol=1e-9)
    machine.fit(gram)
    alpha_M[torch.as_tensor(machine.support_).long()] = torch.as_tensor(
        machine.dual_coef_[0])
    return (alpha_M / alpha_M.sum()).to(gram_MM)
