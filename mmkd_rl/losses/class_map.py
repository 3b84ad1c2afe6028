r"""Logits of a teacher that has not been trained on all classes.

Nothing is to be learned from a teacher about a class that it does not know, so
its logits are completed with what the student believes itself: with K the
known classes and at the term's temperature,

.. math::
    p'_m(c) = p_m(c | K) \, p_S(K), \; c \in K; \qquad
    p'_m(c) = p_S(c), \; c \notin K,

the student's part detached. Then KL(p'_m || p_S) = p_S(K) KL(p_m(. | K) ||
p_S(. | K)), a divergence under a mask: the gradient says how to divide among
the known classes, and nothing of how much the others should get. That is so
with KL only: DIST's correlations and DKD's two parts tie known and unknown
classes together, and with them a little is said of both.
"""

from __future__ import annotations

import torch
from torch import Tensor


def complete(teacher_BC: Tensor, student_BC: Tensor, known_C: Tensor,
             temperature: float) -> Tensor:
    """p'_m as logits, [B, C], in float32.

    Args:
        teacher_BC: The teacher's logits over the student's classes; what
            stands at unknown ones does not matter.
        student_BC: The student's logits; detached here.
        known_C: The classes that the teacher knows.
        temperature: T.
    """
    teacher_BC, student_BC = teacher_BC.float(), student_BC.detach().float()

    def log_mass(logits_BC: Tensor) -> Tensor:
        """Of the known classes, unnormalised, [B, 1]."""
        return (logits_BC / temperature).masked_fill(
            ~known_C, -torch.inf).logsumexp(1, keepdim=True)

    gap_B1 = log_mass(teacher_BC) - log_mass(student_BC)
    return torch.where(known_C, teacher_BC, student_BC + temperature * gap_B1)
