"""Schedule of the teachers' withdrawal (Knowledge Flow, Sec. 3).

lambda_1 rises linearly from 0 to its final value. In the paper the dependency
loss alone brings the student's weights to one "at the end of training"; how
close they come depends on learning rate and length. Here the student is
alone at a given iteration: from ``withdraw_from`` on the teachers' weights are
also scaled by a strength that falls linearly from 1 to 0 at
``independent_at``, after which the student is trained alone. If both are
equal, the teachers are removed in one step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlowSchedule:
    """Schedule of the teachers' withdrawal, in iterations of the student.

    Attributes:
        withdraw_from: Iteration from which the teachers' weights are scaled
            down.
        independent_at: First iteration without teachers.
        dependency_weight: Value of lambda_1 at ``independent_at``.
    """
    withdraw_from: int
    independent_at: int
    dependency_weight: float

    def lambda_1(self, iteration: int) -> float:
        """Weight of the dependency loss."""
        return self.dependency_weight * min(
            1., iteration / max(1, self.independent_at))

    def strength(self, iteration: int) -> float:
        """Strength a of the teachers in [0, 1], see fusion.py."""
        if iteration >= self.independent_at:
            return 0.
        if iteration < self.withdraw_from:
            return 1.
        length = self.independent_at - self.withdraw_from
        return 1 - (iteration - self.withdraw_from) / length


def to_iterations(value: float, key: str, unit: int, total: int) -> int:
    """Convert the user's value to iterations.

    Args:
        value: A float in [0, 1] is a share of the training; an int counts
            epochs, or iterations where the training does.
        key: The option, for messages.
        unit: Iterations in an epoch, or 1.
        total: Iterations of the training.

    Raises:
        ValueError: The value is beyond the end of the training, at which the
            student would still have teachers.
    """
    what = 'epochs' if unit > 1 else 'iterations'
    end = 1. if isinstance(value, float) else total // unit
    if value > end:
        limit = 'a share of the training in [0, 1]' if isinstance(
            value, float) else f'0..{end} {what}, which the training has'
        raise ValueError(
            f'{key}={value!r} must be {limit}; otherwise the student would '
            'still have teachers when the training ends')
    return round(value * total) if isinstance(value, float) else value * unit
