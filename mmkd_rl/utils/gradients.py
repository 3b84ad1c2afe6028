"""Gradients that half precision does not round to zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: A power of two changes no digit of a gradient in float32.
_SCALE = 2.**12


def float32_gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor],
                      directions: Sequence[Tensor], **options: Any
                      ) -> tuple[Tensor | None, ...]:
    """Gradients of the inner products of outputs with directions, in float32.
    On the way through layers in half precision they are scaled, since the
    gradients of large maps are smaller than float16's smallest number. The
    graph is kept.

    Args:
        outputs: Tensors with a graph.
        inputs: Tensors in that graph.
        directions: One of the shape of each output.
        **options: Of :func:`torch.autograd.grad`.

    Returns:
        One of the shape of each input; ``None`` where an input is not used
        and ``options`` allow it.

    Raises:
        RuntimeError: An input is not used, or has no graph.
    """
    found = torch.autograd.grad(
        outputs, inputs,
        [(d * _SCALE).to(x) for d, x in zip(directions, outputs)],
        retain_graph=True, **options)
    return tuple(None if g is None else g.float() / _SCALE for g in found)
