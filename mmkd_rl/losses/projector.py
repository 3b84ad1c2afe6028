"""Bring a level of the student's features to a teacher's shape.

r_m of MTKD-RL, Eq. (2): a 1x1 convolution with batch norm for maps, a linear
layer for vectors. Where resolutions differ, the finer of the two maps is
averaged down to the coarser, for each teacher separately (in the published
code a coarse teacher also reduces the student's resolution for the next
teachers). Where one side is a vector, the other is averaged over space.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_rl.options import Checked
from mmkd_rl.utils.pooling import mean_over_space


class Projector(Checked, nn.Module):
    """Projects one student feature to the shape of a teacher's feature.

    Args:
        student: (D, H, W) of the student's feature, or (D,).
        teacher: (D, H, W) of the teacher's feature, or (D,).
        act: End with a ReLU, as the published code does; for teachers whose
            features are never negative.
        norm: Batch norm after a map's convolution, as in MTKD-RL. Its
            statistics include padding; so the default is off for detectors
            and segmentors.
    """

    def __init__(self,
                 student: tuple[int, ...],
                 teacher: tuple[int, ...],
                 act: bool = False,
                 norm: bool = True) -> None:
        super().__init__()
        self.as_map = len(mapped_shape(student, teacher)) == 3
        layers: list[nn.Module]
        if self.as_map:
            layers = [
                nn.Conv2d(student[0], teacher[0], 1, bias=not norm),
                *([nn.BatchNorm2d(teacher[0])] if norm else [])
            ]
        else:
            layers = [nn.Linear(student[0], teacher[0])]
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
            r_m(F_S) and F_m, of the same shape [B, D_m, ...].
        """
        if not self.as_map:
            return (self.layers(mean_over_space(student)),
                    mean_over_space(teacher))
        size = (min(student.shape[2], teacher.shape[2]),
                min(student.shape[3], teacher.shape[3]))
        if student.shape[2:] != size:
            student = F.adaptive_avg_pool2d(student, size)
        if teacher.shape[2:] != size:
            teacher = F.adaptive_avg_pool2d(teacher, size)
        if self.training and student.numel() == student.shape[1]:
            # One value a channel has no variance: use running statistics.
            projected = self.layers.eval()(student)
            self.layers.train()
            return projected, teacher
        return self.layers(student), teacher


def mapped_shape(student: tuple[int, ...],
                 teacher: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the outputs of a :class:`Projector`, (D_m, H, W) or (D_m,)."""
    if len(student) == len(teacher) == 3:
        return (teacher[0], *map(min, student[1:], teacher[1:]))
    return (teacher[0], )
