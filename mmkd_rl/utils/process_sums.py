"""Sums over the processes of a distributed training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine import dist
from torch import Tensor


def sums_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sum each tensor over all processes, with gradient: that of the sum of
    all processes' losses, which DDP divides by their number.

    All tensors go in one collective operation. Every process must call this
    function equally often, with tensors of the same sizes.

    Args:
        tensors: Tensors of one dtype and device.

    Returns:
        The sums, the same in every process; with one process the tensors
        themselves.
    """
    if dist.get_world_size() < 2:
        return list(tensors)
    total = _Sum.apply(torch.cat([t.flatten() for t in tensors]))
    parts = total.split([t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors)]


class _Sum(torch.autograd.Function):
    # Not torch.distributed.nn.functional.all_reduce, which is deprecated.

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Each process's x is in the total of every process.
        return _Sum.apply(gradients[0])
