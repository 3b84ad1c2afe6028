"""Standardisation of the agent's input.

The paper's state joins features, logits and losses of very different scales,
and its code does not scale them, so that large logits dominate cosines. The
statistics are computed from the history when the agent is trained. So the
policy is a fixed function between two updates.
"""

from __future__ import annotations

from torch import Tensor

from mmkd_rl.utils.running_moments import RunningMoments


class RunningStandardizer(RunningMoments):
    """(s - mean) / std, clipped; clipping only until the first statistics.

    Args:
        size: S.
        clip: Bound of the standardised values.
    """

    def __init__(self, size: int, clip: float = 10.0) -> None:
        super().__init__(size)
        self.clip = clip

    def forward(self, state: Tensor) -> Tensor:
        """[B, S] to [B, S]."""
        scaled = (state - self.mean) * (self.var + 1e-6).rsqrt()
        return scaled.clamp(-self.clip, self.clip)
