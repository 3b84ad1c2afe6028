r"""MGD (Yang et al. 2022, arXiv:2205.01529, "Masked Generative Distillation",
section 3; masks and generation as in the authors' code).

.. math::
    L_m = mean_{D,H,W} (G_m(r_m(F_S) \cdot M) - F_m)^2, \quad
    G = conv_{3 \times 3} \circ ReLU \circ conv_{3 \times 3}

M hides a random share lambda of the pixels (0, one draw for all channels) and
keeps the others (1, not rescaled), anew in each step. G_m, one for each
teacher and level, learns with the student to make the teacher's whole map from
what was kept.

Deviations:

- A mean over D, H, W, so that weights compare with FitNetLoss's. The
  authors' is the sum over D, H, W and the mean over images:
  ``reduction='sum'``.
- Invalid pixels are hidden and left out of the error; the authors' code has
  no masks.
- M is the same for all teachers of one level whose aligned maps have one
  size, so that equal teachers have equal gaps.
- There always is a projector r_m; the authors align maps of different width
  only. Levels are averaged and not added up.
- In evaluation nothing is hidden and no random number drawn.

``mask='channels'`` hides channels instead of pixels, as the authors' code does
for classifiers, also on maps. Vectors are refused: there is no space to
generate over. A student that equals its teacher is not at rest, because G_m is
not the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmkd_rl.losses.base import FeatureTerm, level_pairs, mean_over_levels
from mmkd_rl.losses.projector import mapped_shape
from mmkd_rl.options import BelowOne, NonNegative
from mmkd_rl.records import OutputSpec, Pair, Pairs, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.pooling import masked_mean

#: Loss weights where the config has none: FitNetLoss's, and the authors' for
#: one-stage detectors and segmentors.
_LOSS_WEIGHTS = {'mean': 5., 'sum': 2e-5}
#: Masks of a step, by level and shape.
_Masks = dict[tuple[int, tuple[int, ...]], Tensor]


@MODELS.register_module()
class MGDLoss(FeatureTerm):
    """Error of the teacher's map as generated from a part of the student's.

    Args:
        mask_ratio: lambda; the authors' is 0.65 for one-stage detectors, 0.45
            for two-stage detectors, 0.75 for segmentors, and 0.15 of the
            channels for classifiers.
        mask: Whether pixels or channels are hidden.
        reduction: ``'mean'`` over D, H, W of an image, or the authors'
            ``'sum'``.
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller.
            ``None``: 5 for the mean, 2e-5 for the sum. The authors' for the
            sum is 2e-5 (one-stage detectors, segmentors), 5e-7 (two-stage
            detectors), 7e-5 (classifiers), for each level.
        standardize: See :class:`FeatureTerm`.
    """

    instead_of_vectors = 'FitNetLoss, PKDLoss or NDLoss'

    def __init__(self,
                 mask_ratio: BelowOne = 0.65,
                 mask: Literal['pixels', 'channels'] = 'pixels',
                 reduction: Literal['mean', 'sum'] = 'mean',
                 loss_weight: NonNegative | None = None,
                 standardize: bool = False) -> None:
        super().__init__(_LOSS_WEIGHTS[reduction] if loss_weight is None else
                         loss_weight, standardize)
        self.mask_ratio, self.mask = mask_ratio, mask
        self.reduction = reduction

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Make the projectors and G_m.

        Raises:
            ConfigError: See :meth:`FeatureTerm.build`.
        """
        super().build(student, teachers, projector)
        #: [M][L].
        self.generators = nn.ModuleList(
            nn.ModuleList(
                _generator(mapped_shape(own, theirs)[0])
                for own, theirs in level_pairs(student, t))
            for t in teachers)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """L_m, [B, M], in float32; for masked maps of the valid pixels."""
        if not hasattr(self, 'generators'):
            raise ValueError('MGDLoss was used before it was built; outside '
                             'of a distiller call build(student, teachers) '
                             'first')
        masks: _Masks = {}
        return torch.stack([
            mean_over_levels([
                self._error(generator(self._kept(pair, level, masks)), pair)
                for level, (generator, pair) in enumerate(
                    zip(generators, levels))  # type: ignore[call-overload]
            ]) for generators, levels in zip(self.generators, pairs)
        ], 1)

    def _kept(self, pair: Pair, level: int, masks: _Masks) -> Tensor:
        """r_m(F_S) M."""
        student = pair.student.to(next(self.generators.parameters()).dtype)
        if pair.valid is not None:
            student = torch.where(pair.valid.unsqueeze(1) > 0, student, 0.)
        if not self.training or not self.mask_ratio:
            return student
        count, width, *space = student.shape
        shape = (count, 1, *space) if self.mask == 'pixels' else \
            (count, width, 1, 1)
        if (level, shape) not in masks:
            masks[level, shape] = torch.rand(
                shape, device=student.device) >= self.mask_ratio
        return student * masks[level, shape]

    def _error(self, generated: Tensor, pair: Pair) -> Tensor:
        """Squared error of each image, [B]."""
        difference = generated.float() - pair.teacher.float()
        if pair.valid is not None:
            # Before the square, whose gradient at infinity would be NaN.
            difference = torch.where(
                pair.valid.unsqueeze(1) > 0, difference, 0.)
        error_BDHW = difference.square()
        if self.reduction == 'mean':
            return masked_mean(error_BDHW.mean(1), pair.valid)
        error_BHW = error_BDHW.sum(1)
        if pair.valid is not None:
            error_BHW = error_BHW * pair.valid
        return error_BHW.flatten(1).sum(1)


def _generator(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1))
