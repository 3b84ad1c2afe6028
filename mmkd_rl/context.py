"""The record that strategies, rewards and the agent are built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mmkd_rl.losses import DistillationTerm, LogitTerm
from mmkd_rl.records import OutputSpec
from mmkd_rl.tasks import Task


@dataclass(frozen=True)
class WeightingContext:
    """The sizes of all networks, the task, and the distillation terms.

    Attributes:
        student: Sizes of the student's output.
        teachers: Sizes of the teachers' outputs.
        task: Adapter that reads labels and computes cross entropies.
        terms: The distillation terms, in the config's order.
        classify: Function from a teacher's index and a feature of that
            teacher's shape to the logits of the teacher's classifier, [B, C];
            gradients reach the feature, never the teacher.
        has_mixtures: Whether there are terms that read all teachers at once.
    """
    student: OutputSpec
    teachers: tuple[OutputSpec, ...]
    task: Task
    terms: tuple[DistillationTerm, ...]
    classify: Callable[[int, Tensor], Tensor] | None = None
    has_mixtures: bool = False

    def reading(self, what: str) -> tuple[DistillationTerm, ...]:
        """Terms that read ``'logits'`` or ``'features'``."""
        return tuple(t for t in self.terms if t.reads == what)

    @property
    def logit_weight(self) -> float:
        """alpha, the present sum over terms. Not before training begins: the
        weight of a term that fades depends on how far training is."""
        return _total(self.reading('logits'))

    @property
    def feature_weight(self) -> float:
        """beta, the present sum over terms; see :attr:`logit_weight`."""
        return _total(self.reading('features'))

    @property
    def temperature(self) -> float:
        """T of the first term that reads logits; 4 if there is none."""
        return next((t.temperature for t in self.terms
                     if isinstance(t, LogitTerm)), 4.)


def _total(terms: tuple[DistillationTerm, ...]) -> float:
    return float(sum(t.weight for t in terms))
