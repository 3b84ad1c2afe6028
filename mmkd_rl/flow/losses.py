"""What keeps the student on its way to independence (Knowledge Flow,
Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def dependency_loss(log_weights: Iterable[Tensor]) -> Tensor:
    """Eq. (5): -(1 / L_0) sum_j log p_w(l_j^0).

    Args:
        log_weights: log p_w of each student layer, the student's first.

    Returns:
        One number in [0, inf); 0: the student uses no teacher.
    """
    return -torch.stack([row[0] for row in log_weights]).mean()


def kl_to_old(logits: Tensor, old_logits: Tensor) -> Tensor:
    """Eq. (6): KL(f_theta || f_theta_old), one number.

    Args:
        logits: [B, C], or [B, C, ...] with space behind.
        old_logits: Likewise, without gradient.

    Returns:
        Summed over classes, averaged over all else, in nats.
    """
    log_p = logits.float().log_softmax(1)
    log_old = old_logits.float().log_softmax(1)
    return (log_p.exp() * (log_p - log_old)).sum(1).mean()


def handover_gap(own: Tensor, mixed: Tensor) -> Tensor:
    """How far a student's layer is from what is passed on in its place.

    |z(l_j^0) - h|^2 / Var(h), a mean over all elements. Not the paper's: there
    the student's own layer learns of its teachers through the task's loss
    alone, scaled by p_w(l_j^0).

    Args:
        own: z(l_j^0), any shape.
        mixed: h before the activation, of the same shape; taken without
            gradient, or the teachers would come to the student.

    Returns:
        One number, 0 where the student is alone; about 1 where it says
        nothing of what is passed on.
    """
    return _RelativeSquare.apply(own, mixed.detach())


class _RelativeSquare(torch.autograd.Function):
    """mean((a - b)^2) / Var(b) in three passes over the maps forward and one
    backward; as many layers' maps go through it, autograd's eight would be
    felt."""

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
