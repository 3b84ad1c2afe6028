"""Mix teachers' layers into one of the student's (Knowledge Flow, Sec. 3.2).

h_j = sigma(p_w(l_j^0) z(l_j^0) + sum_l p_w(l) Q_j(l) z(l)), p_w = softmax(w)
over the student and its candidates. Works for vectors as for feature maps.

While the teachers are withdrawn (a deviation of ours, see schedule.py), their
weights are scaled by a strength a in [0, 1] and the student gets the rest:
p'(l) = a p_w(l), p'(l_j^0) = 1 - a (1 - p_w(l_j^0)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmkd_rl.flow.transform import Layout, Transform

#: The student's own layer among its candidates.
STUDENT = 'student'


@dataclass(frozen=True)
class Candidate:
    """A teacher's layer that is mixed into a layer of the student.

    Attributes:
        teacher: Index of the teacher.
        name: ``'TEACHER:LAYER'``.
        slot: Index of the layer among the teacher's recorded features.
        layout: Layout of the layer's tensor.
    """
    teacher: int
    name: str
    slot: int
    layout: Layout


class Fusion(nn.Module):
    """Mixes teachers' layers into one layer of the student.

    Args:
        name: Name of the student's layer.
        layout: Layout of the student's layer.
        candidates: L_j without the student's own layer, at least one.
        student_weight: Initial p_w(l_j^0); ``None``: all weights are equal.
        gain: w is ``gain`` times a trained parameter, so that it is learned
            faster than the matrices: ``gain ** 2`` times under SGD, ``gain``
            times under Adam.
    """

    def __init__(self, name: str, layout: Layout,
                 candidates: Sequence[Candidate],
                 student_weight: float | None = None,
                 gain: float = 1.) -> None:
        super().__init__()
        self.name, self.layout, self.gain = name, layout, gain
        self.candidates = tuple(candidates)
        start = torch.zeros(1 + len(self.candidates))
        if student_weight is not None:
            start[0] = math.log(len(self.candidates) * student_weight /
                                (1 - student_weight))
        #: w / gain, the student first.
        self.logits = nn.Parameter(start / gain)
        #: Initial p_w(l_j^0).
        self.start = float(start.softmax(0)[0])
        self.transforms: Sequence[Transform] = nn.ModuleList(
            Transform(layout, c.layout)
            for c in self.candidates)  # type: ignore[assignment]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the weights: ``'student'``, then the candidates."""
        return (STUDENT, *(c.name for c in self.candidates))

    def log_weights(self, active: Sequence[bool]) -> Tensor:
        """log p_w, [1 + len(candidates)]; -inf for retired teachers.

        Args:
            active: Whether each teacher is still active.
        """
        logits = self.gain * self.logits.float()
        stays = [True, *(active[c.teacher] for c in self.candidates)]
        if not all(stays):
            # No boolean mask: it would have to be copied to the device.
            logits = torch.stack([
                w if on else torch.full_like(w, -torch.inf)
                for w, on in zip(logits.unbind(), stays)])
        return logits.log_softmax(0)

    def weights(self, active: Sequence[bool], strength: float) -> Tensor:
        """p', the weights of the mixture, [1 + len(candidates)]; sums to
        one."""
        shares = self.log_weights(active).exp()
        if strength == 1:
            return shares
        teachers = strength * shares[1:]
        return torch.cat([1 - teachers.sum(0, keepdim=True), teachers])

    def trust(self, active: Sequence[bool]) -> Tensor:
        """How far p_w(l_j^0) has fallen since the start, in [0, 1], without
        gradient: 0 if not at all, 1 if to half of its initial value or
        below."""
        own = self.log_weights(active)[0].detach().exp()
        return (2 * (1 - own / self.start)).clamp(0, 1)

    def forward(self, own: Tensor, features: Sequence[Tensor | None],
                weights: Tensor,
                image: tuple[int, int] | None = None) -> Tensor:
        """The mixture, of the shape of ``own``.

        Args:
            own: z(l_j^0).
            features: z(l) of each candidate; ``None``: its teacher is not
                active.
            weights: See :meth:`weights`.
            image: (H, W) of the images, if the input are images.
        """
        # In the student's precision: weights are float32 under autocast.
        mixed = weights[0].to(own.dtype) * own
        for share, transform, feature in zip(
                weights[1:], self.transforms, features):
            if feature is not None:
                # In place, to save memory; backward needs no partial sum.
                mixed.add_(transform(feature, own, share, image).to(own.dtype))
        return mixed
