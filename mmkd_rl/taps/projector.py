"""Bring the student's last feature to a teacher's shape.

r_m of MTKD-RL, Eq. (2): a 1x1 convolution with batch norm for maps, a linear
map for vectors. Where resolutions differ, the finer of the two maps is
averaged down to the coarser (each teacher on its own: a coarse teacher does
not blur what the next one sees, as it does in the published code). Where one
side is a vector, the other is averaged over space.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_rl.records import ModelSpec


class Projector(nn.Module):
    """Project one student feature to one teacher's.

    Args:
        student: Sizes of the student's output.
        teacher: Sizes of the teacher's.
        act: End with a ReLU, as the published code does; for teachers whose
            features are never negative.
    """

    def __init__(self,
                 student: ModelSpec,
                 teacher: ModelSpec,
                 act: bool = False) -> None:
        super().__init__()
        self.as_map = len(mapped_shape(student, teacher)) == 3
        layers: list[nn.Module]
        if self.as_map:
            layers = [
                nn.Conv2d(
                    student.channels, teacher.channels, 1, bias=False),
                nn.BatchNorm2d(teacher.channels)
            ]
        else:
            layers = [nn.Linear(student.channels, teacher.channels)]
        if act:
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, student: Tensor,
                teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Project and align.

        Args:
            student: [B, D_S, H_S, W_S] or [B, D_S].
            teacher: [B, D_m, H_m, W_m] or [B, D_m].

        Returns:
            r_m(F_S) and F_m, of one shape [B, D_m, ...].
        """
        if not self.as_map:
            return self.layers(_pool(student)), _pool(teacher)
        size = (min(student.shape[2], teacher.shape[2]),
                min(student.shape[3], teacher.shape[3]))
        if student.shape[2:] != size:
            student = F.adaptive_avg_pool2d(student, size)
        if teacher.shape[2:] != size:
            teacher = F.adaptive_avg_pool2d(teacher, size)
        if self.training and student.numel() == student.shape[1]:
            # One value a channel has no variance: the running one is used.
            projected = self.layers.eval()(student)
            self.layers.train()
            return projected, teacher
        return self.layers(student), teacher


def mapped_shape(student: ModelSpec, teacher: ModelSpec) -> tuple[int, ...]:
    """(D_m, H, W) or (D_m,): what a :class:`Projector` makes of both."""
    if len(student.feature_shape) == len(teacher.feature_shape) == 3:
        return (teacher.channels, *map(min, student.feature_shape[1:],
                                       teacher.feature_shape[1:]))
    return (teacher.channels, )


def _pool(feature: Tensor) -> Tensor:
    return feature.flatten(2).mean(2) if feature.ndim > 2 else feature
