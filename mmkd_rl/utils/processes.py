"""Sums and means over the processes of a distributed training.

With DDP each process has a part of the batch, and gradients are averaged. A
statistic of the whole batch (a number of valid pixels, the variance of a
channel) must be computed over all parts, so that N processes train like one
process with the N-fold batch.
"""

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


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of one tensor, see :func:`sums_over_processes`."""
    return sums_over_processes([x])[0]


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of one tensor, see :func:`sums_over_processes`."""
    size = dist.get_world_size()
    return x if size == 1 else sum_over_processes(x) / size


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
