"""Running mean and variance of the agent's input.

The paper's state joins features, logits and losses of very different scales,
and its code does not scale them, so that large logits dominate cosines. The
statistics are computed from the history when the agent is trained, and merged
by Chan, Golub and LeVeque's formula for pairs of samples (1979). So the policy
is a fixed function between two updates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningStandardizer(nn.Module):
    """(s - mean) / std, clipped; clipping only until the first statistics.

    Args:
        size: S.
        clip: Bound of the standardised values.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
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

    def forward(self, state: Tensor) -> Tensor:
        """[B, S] to [B, S]."""
        scaled = (state - self.mean) * (self.var + 1e-6).rsqrt()
        return scaled.clamp(-self.clip, self.clip)
