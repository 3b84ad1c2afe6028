"""Running mean and variance of the agent's input.

The paper's state joins features, logits and losses of very different scale
and its code feeds them as they are; one large logit then drowns a cosine. The
statistics are those of the history, gathered when the agent is trained and
merged by Chan, Golub and LeVeque's formula for pairs of samples (1979), so
that between two updates the policy is one fixed function.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningStandardizer(nn.Module):
    """(s - mean) / std, clipped; the identity until it has seen something.

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
            mean: [S].
            var: [S], over the samples without Bessel's correction.
            count: How many they were, a scalar tensor.
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
