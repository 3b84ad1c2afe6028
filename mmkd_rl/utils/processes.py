"""Sums and means over the processes of a distributed training.

With DDP each process has a part of the batch, and gradients are averaged. A
statistic of the whole batch (a mean over valid pixels, the variance of a
channel) must be computed over all parts, so that N processes train like one
process with the N-fold batch.
"""

from __future__ import annotations

from mmengine import dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of all processes' tensors; all processes must call it.

    Gradients pass through the sum to the tensors of all processes. The same
    tensor in a single process.
    """
    if dist.get_world_size() == 1:
        return x
    if x.requires_grad:
        return all_reduce(x)
    total = x.clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of all processes' tensors, see :func:`sum_over_processes`."""
    size = dist.get_world_size()
    return x if size == 1 else sum_over_processes(x) / size
