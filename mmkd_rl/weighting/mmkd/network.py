"""MMKD's weight networks."""

from __future__ import annotations

from torch import Tensor, nn


class WeightNetwork(nn.Module):
    """softmax(MLP(x)): weights of the teachers from a sample's state.

    The last layer starts at zero, so that the first weights are equal.

    Args:
        size: S.
        num_teachers: M.
        hidden: Width of the hidden layer.
    """

    def __init__(self, size: int, num_teachers: int,
                 hidden: int = 128) -> None:
        super().__init__()
        last = nn.Linear(hidden, num_teachers)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.first = nn.Linear(size, hidden)
        self.last = last

    def forward(self, state: Tensor) -> Tensor:
        """[B, S] to [B, M]; rows sum to one."""
        return self.last(self.first(state).relu()).softmax(1)
