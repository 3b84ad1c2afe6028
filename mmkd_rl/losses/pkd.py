r"""PKD (Cao et al. 2022, arXiv:2207.02039, "PKD: General Distillation
Framework for Object Detectors via Pearson Correlation Coefficient", section
on feature imitation).

.. math::
    L_m = \frac{1}{2 D n} \sum_d \sum_{i, p} (s_{ip}^d - t_{ip}^d)^2, \quad
    x \mapsto \frac{x - \mu}{\sigma + eps}

s and t are r_m(F_S) and F_m with each channel d brought to zero mean and unit
variance over the n pixels p of all images i of the batch. sigma is the root of
the unbiased variance, as in the authors' code, so that, but for eps, L_m =
(n - 1) / n (1 - rho), with rho Pearson's correlation, averaged over channels.

**Per image.** The share of image i is

.. math:: L_{im} = \frac{B}{2 D n} \sum_d \sum_p (s_{ip}^d - t_{ip}^d)^2:

where all pixels are valid the image's mean of the squares, halved. The batch
mean of the shares is the published loss, exactly; a share is never negative;
and a student that equals its teacher has value and gradient zero for each
image, whatever weights the images get. (As for DIST, other splits of 1 - rho
lack the last two.)

**Masks.** Pixels count with their weight v in [0, 1] in all sums: mu = sum v x
/ n with n = sum v, sigma^2 = sum v (x - mu)^2 / (n - sum v^2 / n), which is
the unbiased variance of the valid pixels where weights are 0 or 1. B is the
number of images with valid pixels, so that an image with few of them has a
small share.

**Zero variance.** A constant channel becomes zeros without gradient: it costs
1/2 where the other network's channel varies, and 0 where that is constant,
too. The value is that of the authors' code, whose gradient is divided by eps
there.

**Several processes.** n, B, mu and sigma are of the batches of all processes,
with gradient, so that N processes equal one with an N-fold batch. Deviation:
the authors' are of each process's own batch.

Further deviations: there always is a projector, also between maps of equal
width; a finer map is averaged down, where the authors interpolate the
student's; levels are averaged and not added up. For vectors the statistics are
over the batch; at B = 1 their loss is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd_rl.losses.base import FeatureTerm, mean_over_levels
from mmkd_rl.options import NonNegative
from mmkd_rl.records import Pair, Pairs, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.processes import sums_over_processes

#: Standard deviation, relative to the root mean square, below which a channel
#: varies by rounding error alone.
_ROUNDING = 1e-6
#: Number below which a sum of weights is zero.
_NONE = 1e-6


@MODELS.register_module()
class PKDLoss(FeatureTerm):
    """Distance of student's and teacher's channels, standardised.

    Args:
        eps: Added to standard deviations.
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller. The
            authors' is 6 for two-stage detectors and 10 for one-stage
            detectors, for each of four levels, which they add up.
    """

    def __init__(self,
                 eps: NonNegative = 1e-6,
                 loss_weight: NonNegative = 6.0) -> None:
        super().__init__(loss_weight)
        self.eps = eps

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """The loss's shares, [B, M], in float32 whatever the inputs."""
        flat = [pair for levels in pairs for pair in levels]
        weights = [_weights(pair, truth) for pair in flat]
        maps = [_pixels(x, v) for pair, v in zip(flat, weights)
                for x in (pair.student, pair.teacher)]
        # Two collective operations a step, whatever the numbers of teachers
        # and levels: all counts and sums, then all squares.
        sums = sums_over_processes([
            *(_counts(x, v) for x, v in zip(maps[::2], weights)),
            *(_total(x, v) for x, v in zip(maps, _twice(weights)))
        ])
        counts, sums = sums[:len(flat)], sums[len(flat):]
        means = [x_D / count[1].clamp_min(_NONE)
                 for x_D, count in zip(sums, _twice(counts))]
        centred = [x - mean_D[:, None] for x, mean_D in zip(maps, means)]
        squares = sums_over_processes([
            _total(x.square(), v) for x, v in zip(centred, _twice(weights))])
        units = [self._scaled(*channel) for channel in zip(
            centred, means, squares, _twice(counts))]
        shares = iter([
            _share(s, t, v, count) for s, t, v, count in zip(
                units[::2], units[1::2], weights, counts)])
        return torch.stack([
            mean_over_levels([next(shares) for _ in levels])
            for levels in pairs
        ], 1)

    def _scaled(self, centred: Tensor, mean_D: Tensor, squares_D: Tensor,
                count: Tensor) -> Tensor:
        """Channels of unit variance, [B, D, P]; zeros where one is
        constant."""
        _, n, n2 = count
        with torch.no_grad():
            varies_D = squares_D > _ROUNDING**2 * (
                squares_D + n * mean_D.square())
        # The root of zero has an infinite gradient.
        deviation_D = (torch.where(varies_D, squares_D, 1.) /
                       (n - n2 / n.clamp_min(_NONE)).clamp_min(_NONE)).sqrt()
        return centred * torch.where(
            varies_D, 1 / (deviation_D + self.eps), 0.)[:, None]


def _weights(pair: Pair, truth: Truth) -> Tensor | None:
    """v, [B, 1, P]; ``None``: ones."""
    if pair.valid is not None:
        return pair.valid.float().flatten(1).unsqueeze(1)
    if truth.valid is None:
        return None
    # A vector has no pixels, but its image may have none that is valid.
    return (truth.count > 0).float()[:, None, None]


def _pixels(x: Tensor, weights: Tensor | None) -> Tensor:
    """[B, D, ...] -> [B, D, P] in float32, zero where the weight is."""
    x = x.float()
    x = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)
    # Not only a weight of 0: invalid pixels may be infinite.
    return x if weights is None else torch.where(weights > 0, x, 0.)


def _total(x: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted sum over images and pixels, [D]."""
    return (x if weights is None else x * weights).sum((0, 2))


def _counts(x: Tensor, weights: Tensor | None) -> Tensor:
    """Images with valid pixels, sum of v, sum of v^2; [3]."""
    images, _, pixels = x.shape
    if weights is None:
        return x.new_tensor([images, images * pixels, images * pixels])
    weights = weights.expand(-1, -1, pixels)
    return torch.stack([(weights.amax((1, 2)) > 0).to(weights).sum(),
                        weights.sum(), weights.square().sum()])


def _share(student: Tensor, teacher: Tensor, weights: Tensor | None,
           count: Tensor) -> Tensor:
    """Share of each image, [B]."""
    gap_BP = (student - teacher).square().mean(1)
    if weights is not None:
        gap_BP = gap_BP * weights[:, 0]
    return gap_BP.sum(1) * (count[0] / count[1].clamp_min(_NONE) / 2)


def _twice(values: list) -> list:
    """Each value for the student's map and again for the teacher's."""
    return [value for value in values for _ in range(2)]
