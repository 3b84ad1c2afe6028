"""The hook that mixes teachers' features into one module of the student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmkd_rl.flow.fusion import Fusion
from mmkd_rl.flow.losses import handover_gap


class Mixer:
    """The hook on one module of the student.

    It stays installed and does nothing without features: activation
    checkpointing runs a module twice, and both calls must be mixed.

    Args:
        call: Index of the call whose tensor is mixed.
        calls: Number of calls of the module in one forward pass.
        index: Element of the output to mix where the output is a tuple.
        fusion: Mixes the features.
    """

    def __init__(self, call: int, calls: int, index: int | None,
                 fusion: Fusion) -> None:
        self.call, self.calls, self.index = call, calls, index
        self.fusion = fusion
        #: Whether to compute :func:`handover_gap` in each forward pass.
        self.watches_gap = False
        self.begin(None)

    def begin(self, features: Sequence[Tensor | None] | None,
              weights: Tensor | None = None,
              image: tuple[int, int] | None = None) -> None:
        """Set the features for the student's next forward pass; ``None``:
        nothing is mixed in."""
        self._features, self._weights, self._image = features, weights, image
        self._count = 0
        self.gap: Tensor | None = None

    @property
    def missed(self) -> bool:
        """Whether features were given, but the module did not run."""
        return self._features is not None and self._count <= self.call

    def __getstate__(self) -> dict:
        """Leave the features of the last batch out of copies."""
        return {**self.__dict__, '_features': None, '_weights': None,
                'gap': None}

    def mix_input(self, module: nn.Module, args: tuple) -> tuple | None:
        """Forward pre-hook: mix the first input."""
        return (self._mix(args[0]), *args[1:]) if self._turn() else None

    def mix_output(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """Forward hook: mix the output."""
        if not self._turn():
            return None
        if self.index is None:
            return self._mix(output)
        values = list(output)
        values[self.index] = self._mix(values[self.index])
        return type(output)(values)

    def _turn(self) -> bool:
        if self._features is None:
            return False
        count, self._count = self._count, self._count + 1
        return count % self.calls == self.call

    def _mix(self, own: Tensor) -> Tensor:
        assert self._features is not None and self._weights is not None
        mixed = self.fusion(own, self._features, self._weights, self._image)
        if self.watches_gap:
            self.gap = handover_gap(own, mixed)
        return mixed
