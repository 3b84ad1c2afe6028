r"""Logits of a teacher that has not been trained on all classes.

A teacher has no information about classes that it was not trained on, so its
probabilities of these classes are taken from the student: with K the classes
that the teacher was trained on and at the term's temperature,

.. math::
    p'_m(c) = p_m(c | K) \, p_S(K), \; c \in K; \qquad
    p'_m(c) = p_S(c), \; c \notin K,

the student's part detached. Then KL(p'_m || p_S) = p_S(K) KL(p_m(. | K) ||
p_S(. | K)), a masked divergence: its gradient changes how probability is
divided among the classes of K, and not how much the other classes get. That
holds for KL only: DIST's correlations and DKD's two parts combine both kinds
of classes, so there the gradient also reaches the other classes a little.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Score whose sigmoid is 1e-13, in half precision, too.
_IMPOSSIBLE = -30.


def complete(teacher_BC: Tensor, student_BC: Tensor, known_C: Tensor,
             temperature: float) -> Tensor:
    """p'_m as logits, [B, C, ...], in float32.

    Args:
        teacher_BC: The teacher's logits over the student's classes; entries
            outside of K are not used.
        student_BC: The student's logits; detached here.
        known_C: Mask of the classes of K.
        temperature: T.
    """
    teacher_BC, student_BC = teacher_BC.float(), student_BC.detach().float()
    known_C = known_C.view(-1, *[1] * (teacher_BC.ndim - 2))

    def log_mass(logits_BC: Tensor) -> Tensor:
        """Log of the unnormalised probability of K, [B, 1]."""
        return (logits_BC / temperature).masked_fill(
            ~known_C, -torch.inf).logsumexp(1, keepdim=True)

    gap_B1 = log_mass(teacher_BC) - log_mass(student_BC)
    return torch.where(known_C, teacher_BC, student_BC + temperature * gap_B1)


def without_unknown(student_BC: Tensor, teacher_BC: Tensor,
                    known_C: Tensor) -> tuple[Tensor, Tensor]:
    """Scores for a sigmoid each of student and teacher, [B, C, ...], in which
    classes that the teacher was not trained on have the probability 0, and no
    gradient.

    Args:
        student_BC: The student's logits.
        teacher_BC: The teacher's logits over the student's classes.
        known_C: Mask of the classes on which the teacher was trained.
    """
    # Not a selection of channels, which would synchronise with the device.
    unknown_C = ~known_C.view(-1, *[1] * (teacher_BC.ndim - 2))
    return (student_BC.masked_fill(unknown_C, _IMPOSSIBLE),
            teacher_BC.masked_fill(unknown_C, _IMPOSSIBLE))
