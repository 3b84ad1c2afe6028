r"""DIST (Huang et al. 2022, arXiv:2205.10536).

.. math::
    L = \beta T^2 (1 - mean_i \rho(q_{i:}, p_{i:}))
      + \gamma T^2 (1 - mean_c \rho(q_{:c}, p_{:c})),
    \quad p = softmax(z / T)

rho is Pearson's correlation: of the classes of one sample (a row, the paper's
inter-class relation) and of the samples of one class (a column, intra-class).

**Per sample.** The column term belongs to the batch. With unit vectors (minus
mean, divided by norm) a_c of the student's and b_c of the teacher's column,

.. math:: 1 - \rho_c = \tfrac12 |a_c - b_c|^2 = \sum_i \tfrac12 (a_{ic} -
    b_{ic})^2,

so sample i's share is B / (2 C) sum_c (a_ic - b_ic)^2: the shares' batch mean
is the published term, exactly. Of the many splits with that mean this one is
never negative, is zero for each sample whose standardised predictions agree,
and leaves a student that equals its teacher without gradient whatever weights
the samples get; the share 1 - B / C sum_c a_ic b_ic does neither.

**Zero variance.** As in the published code rho = <.,.> / (|.||.| + eps) =
k times Pearson's, with k = |.||.| / (|.||.| + eps): where a row or column is
constant, rho = 0, its cost 1 and its gradient 0. eps is more than a guard: at
T = 1 the columns of classes that no image of the batch resembles have norms
near its root and fade out. ``eps=0`` is the paper's formula. Deviation: k has
no gradient here, else a student equal to its teacher would not be at rest.

**Dense logits.** Every valid pixel is a row, and a sample of the columns. With
several processes the columns are those of the whole batch.

At B = 1 there are no columns: their term is zero.
"""

from __future__ import annotations

import math

import torch
from mmengine import dist
from torch import Tensor

from mmkd_rl.losses.base import LogitTerm, mean_over_levels, stacked_levels
from mmkd_rl.options import NonNegative, Positive
from mmkd_rl.records import Pairs, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.pooling import masked_mean
from mmkd_rl.utils.processes import sum_over_processes

#: Relative norm below which a centred vector is only rounding error.
_ROUNDING = 1e-6


@MODELS.register_module()
class DISTLoss(LogitTerm):
    """Distance of correlations between student's and teacher's predictions.

    Args:
        beta: Weight of the rows (relations between classes).
        gamma: Weight of the columns (relations between samples).
        temperature: T.
        eps: See above; 0: Pearson's correlation.
        loss_weight: alpha of MTKD-RL, Eq. (2); applied by the distiller.
    """

    def __init__(self,
                 beta: NonNegative = 2.0,
                 gamma: NonNegative = 2.0,
                 temperature: Positive = 1.0,
                 eps: NonNegative = 1e-8,
                 loss_weight: NonNegative = 1.0) -> None:
        super().__init__(temperature, loss_weight)
        self.beta, self.gamma, self.eps = beta, gamma, eps

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """The loss's shares, [B, M], in float32 whatever the inputs.

        For dense logits each valid pixel is a sample of the columns, and an
        image's share is a sum over its pixels.
        """
        return mean_over_levels([
            self._level(*level, truth.count)
            for level in stacked_levels(pairs)
        ])

    def _level(self, student_BC: Tensor, teachers_BMC: Tensor,
               valid: Tensor | None, count_B: Tensor) -> Tensor:
        # P pixels after the classes; 1 for plain classification
        q_B1CP = _with_space((student_BC.float() / self.temperature).softmax(
            1).unsqueeze(1))
        p_BMCP = _with_space(
            (teachers_BMC.float() / self.temperature).softmax(2))
        rows_BMCP = self.beta * self._gap(q_B1CP, p_BMCP, (2, ))
        if valid is None and dist.get_world_size() == 1:
            if len(q_B1CP) * q_B1CP.shape[3] > 1:
                rows_BMCP = rows_BMCP + self.gamma * self._gap(
                    q_B1CP, p_BMCP, (0, 3))
            return rows_BMCP.mean((2, 3)) * self.temperature**2
        w_BMP = torch.ones_like(p_BMCP[:, :, 0]) if valid is None else \
            valid.flatten(2)
        rows_BMP = rows_BMCP.mean(2)
        rows_BM = masked_mean(rows_BMP.flatten(0, 1),
                              w_BMP.flatten(0, 1)).view(rows_BMP.shape[:2])
        columns_BM = self._weighted_columns(
            q_B1CP, p_BMCP, w_BMP.unsqueeze(2), (count_B > 0).sum())
        return (rows_BM + self.gamma * columns_BM) * self.temperature**2

    def _weighted_columns(self, q: Tensor, p: Tensor, w_BM1P: Tensor,
                          images: Tensor) -> Tensor:
        """Shares of the columns' 1 - rho, [B, M], over the valid pixels of
        all processes: with N images, N / 2 sum_i w_i (a_i - b_i)^2."""
        total = sum_over_processes(w_BM1P.sum((0, 3), keepdim=True))
        units, norms = [], []
        for x in (q, p):
            def over_pixels(values: Tensor) -> Tensor:
                return sum_over_processes(
                    (w_BM1P * values).sum((0, 3), keepdim=True))
            centred = x - over_pixels(x) / total.clamp_min(1e-6)
            square = over_pixels(centred.square())
            varies = square > _ROUNDING**2 * over_pixels(
                x.detach().square())
            norm = torch.where(varies, square, 1.).sqrt()
            units.append(centred / norm)
            norms.append(torch.where(varies, norm, 0.).detach())
        size = norms[0] * norms[1]
        k = torch.where(size > 0, size / (size + self.eps), 0.)
        count = sum_over_processes(images.float())
        shares_BMC = (w_BM1P * (units[0] - units[1]).square()).sum(3)
        shares_BMC = k[..., 0] * count / 2 * shares_BMC + (1 - k[..., 0])
        # A single sample has no columns.
        return torch.where(total[..., 0, 0] > 1, shares_BMC.mean(2), 0.)

    def _gap(self, q: Tensor, p: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Shares of each entry; their mean over ``dims`` is 1 - rho."""
        unit_q, norm_q = _standardize(q, dims)
        unit_p, norm_p = _standardize(p, dims)
        with torch.no_grad():
            size = norm_q * norm_p
            k = torch.where(size > 0, size / (size + self.eps), 0.)
        count = math.prod(q.shape[d] for d in dims)
        return k * (count / 2) * (unit_q - unit_p).square() + (1 - k)


def _with_space(x: Tensor) -> Tensor:
    """[B, M, C, ...] -> [B, M, C, P]."""
    return x.flatten(3) if x.ndim > 3 else x.unsqueeze(3)


def _standardize(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Subtract the mean and divide by the norm over ``dims``. Also returns the
    norm, 0 where it is only rounding error."""
    centred = x - x.mean(dims, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=dims, keepdim=True)
    varies = norm > _ROUNDING * torch.linalg.vector_norm(
        x.detach(), dim=dims, keepdim=True)
    return (centred / torch.where(varies, norm, 1.),
            torch.where(varies, norm, 0.))
