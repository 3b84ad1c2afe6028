"""Running mean and variance of the columns of a stream of samples.

Merged by Chan, Golub and LeVeque's formula for pairs of samples (1979).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean 0 and variance 1 until the first samples.

    Args:
        size: Number of columns S.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(size))
        self.register_buffer('var', torch.ones(size))
        self.register_buffer('count', torch.zeros(()))

    @torch.no_grad()
    def merge(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Merge in the statistics of more samples.

        Args:
            mean: Mean over the samples, [S].
            var: Variance without Bessel's correction, [S].
            count: Number of samples, a scalar tensor.
        """
        total = (self.count + count).clamp_min(1)
        delta = mean - self.mean
        share = count / total
        var = (self.var * self.count + var * count) / total \
            + delta.square() * share * (1 - share)
        self.mean.add_(delta * share)
        self.var.copy_(var)
        self.count.copy_(total)
