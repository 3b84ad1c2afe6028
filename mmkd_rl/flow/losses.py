"""Losses that bring the student to independence (Knowledge Flow, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def dependency_loss(log_weights: Iterable[Tensor]) -> Tensor:
    """Eq. (5): -(1 / L_0) sum_j log p_w(l_j^0).

    Args:
        log_weights: log p_w of each student layer, the student's first.

    Returns:
        A scalar in [0, inf); 0: the student uses no teacher.
    """
    return -torch.stack([row[0] for row in log_weights]).mean()


def kl_to_old(logits: Tensor, old_logits: Tensor) -> Tensor:
    """Eq. (6): KL(f_theta || f_theta_old).

    Args:
        logits: Logits of the student, [B, C] or [B, C, ...].
        old_logits: Logits of theta_old, without gradient.

    Returns:
        A scalar: sum over classes, mean over all other axes, in nats.
    """
    log_p = logits.float().log_softmax(1)
    log_old = old_logits.float().log_softmax(1)
    return (log_p.exp() * (log_p - log_old)).sum(1).mean()


def handover_gap(own: Tensor, mixed: Tensor) -> Tensor:
    """Distance of a student's layer from the mixture that replaces it.

    |z(l_j^0) - h|^2 / Var(h), a mean over all elements. Not in the paper, in
    which the student's own layer learns only through the task's loss, scaled
    by p_w(l_j^0).

    Args:
        own: z(l_j^0), any shape.
        mixed: h before the activation, of the same shape; detached, so that
            the loss does not draw the mixture to the student's layer.

    Returns:
        A scalar: 0 where the student is alone, about 1 where its layer is
        uncorrelated with the mixture.
    """
    return _RelativeSquare.apply(own, mixed.detach())


class _RelativeSquare(torch.autograd.Function):
    """mean((a - b)^2) / Var(b) in three passes over the maps forward and one
    backward. Autograd would need eight, which costs time with many layers."""

    @staticmethod
    def forward(ctx, own: Tensor, target: Tensor) -> Tensor:
        gap = own - target
        spread = (_mean_square(target) - target.mean(
            dtype=_exact(target)).square()).clamp_min(1e-12)
        ctx.save_for_backward(gap, spread)
        return _mean_square(gap) / spread

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        gap, spread = ctx.saved_tensors
        return gap * (2 * grad / (gap.numel() * spread)).to(gap.dtype), None


def _mean_square(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(
        tensor, dtype=_exact(tensor)).square() / tensor.numel()


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
