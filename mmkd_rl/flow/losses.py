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
        One number in [0, inf); 0: the student leans on nobody.
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
