r"""Channel-wise distillation (Shu et al. 2021, arXiv:2011.13256, Eqs. 4, 5).

.. math::
    L_m = \frac{T^2}{D} \sum_d KL(\phi(F_m^d) \| \phi(r_m(F_S)^d)),
    \quad \phi(x)_i = softmax_i(x_i / T)

with the softmax over space: each channel becomes a distribution over pixels,
which does not change if a constant is added to the channel. One number per
sample and teacher. The loss of a map of a single pixel is zero; vectors are
refused.

``CWDLogitLoss`` is the same on score maps, channels being classes: z_S in
place of r_m(F_S), z_m in place of F_m. Deviations:

- Invalid pixels are left out of the softmax, as if they were not in the map;
  the authors' code has them in.
- A teacher's score map is resized to the student's resolution.
- Classes that a teacher with a class map does not know have no loss and no
  gradient, and stay in the mean over the C channels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmkd_rl.losses.base import (
    FeatureTerm,
    LogitTerm,
    mean_over_levels,
    need_maps,
)
from mmkd_rl.options import ConfigError, NonNegative, Positive
from mmkd_rl.records import OutputSpec, Pair, Pairs, Truth
from mmkd_rl.registry import MODELS


@MODELS.register_module()
class CWDLoss(FeatureTerm):
    """KL divergence between channels of student and teacher over space.

    Args:
        temperature: T; the authors' is 1 for features of detectors.
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller. The
            authors' is 5 for each of a detector's levels, which they add up.
        standardize: See :class:`FeatureTerm`.
    """

    def __init__(self,
                 temperature: Positive = 1.0,
                 loss_weight: NonNegative = 5.0,
                 standardize: bool = False) -> None:
        super().__init__(loss_weight, standardize)
        self.temperature = temperature

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Check that features are maps, then make the projectors.

        Raises:
            ConfigError: The student's or a teacher's feature is a vector; or
                see :meth:`FeatureTerm.build`.
        """
        for spec in (student, *teachers):
            for shape in spec.features:
                self._needs_space(spec.name, len(shape) - 1)
                if shape[1:] == (1, 1):
                    print_log(
                        'CWDLoss compares channels over space, but the '
                        f'feature of {spec.name!r} has a single pixel (on '
                        'images of model.probe_size), so its loss is always '
                        'zero. Tap an earlier layer with '
                        "taps=dict(feature='...')", 'current',
                        logging.WARNING)
        super().build(student, teachers, projector)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """L_m, [B, M], in float32.

        Raises:
            ConfigError: Features are vectors.
        """
        return torch.stack([
            mean_over_levels([self._level(pair) for pair in levels])
            for levels in pairs
        ], 1)

    def _level(self, pair: Pair) -> Tensor:
        self._needs_space('a pair', pair.teacher.ndim - 2)
        return channel_divergence(pair.student, pair.teacher,
                                  self.temperature, pair.valid)

    @staticmethod
    def _needs_space(name: str, axes: int) -> None:
        need_maps('CWDLoss', name, axes, 'FitNetLoss or NDLoss')


@MODELS.register_module()
class CWDLogitLoss(LogitTerm):
    """KL divergence between score maps of student and teacher over space.

    Args:
        temperature: T; the authors' is 4 on Cityscapes.
        loss_weight: alpha of MTKD-RL, Eq. (2); applied by the distiller. The
            authors' is 3, with this temperature.
    """

    softmax = None

    def __init__(self,
                 temperature: Positive = 4.0,
                 loss_weight: NonNegative = 3.0) -> None:
        super().__init__(temperature, loss_weight)

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Check that logits are maps of the same classes.

        Raises:
            ConfigError: The student's or a teacher's logits have no spatial
                axes; or see :meth:`LogitTerm.build`.
        """
        super().build(student, teachers, projector)
        for spec in (student, *teachers):
            for shape in spec.logits:
                _needs_score_maps(spec.name, len(shape) - 1)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """L_m, [B, M], in float32.

        Raises:
            ConfigError: Logits have no spatial axes.
        """
        return torch.stack([
            mean_over_levels([self._level(pair) for pair in levels])
            for levels in pairs
        ], 1)

    def _level(self, pair: Pair) -> Tensor:
        _needs_score_maps('a pair', pair.teacher.ndim - 2)
        return channel_divergence(pair.student, pair.teacher,
                                  self.temperature, pair.valid)

    def _known_alone(self, student: Tensor, teacher: Tensor,
                     known_C: Tensor) -> tuple[Tensor, Tensor]:
        """The student's own scores where the teacher knows nothing: channels
        are compared each on its own."""
        known = known_C.view(-1, *[1] * (teacher.ndim - 2))
        return student, torch.where(known, teacher,
                                    student.detach().to(teacher))


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float,
                       valid: Tensor | None = None) -> Tensor:
    """T^2 times the mean over channels of the divergence over space, [B].

    Args:
        student: Features or dense logits, [B, D, ...].
        teacher: Features or dense logits of the same shape.
        temperature: T.
        valid: Weight of each pixel, [B, ...]; pixels with 0 are left out of
            the softmax. ``None``: all are valid.
    """
    maps = [x.float().flatten(2) / temperature for x in (student, teacher)]
    if valid is not None:
        # Not minus infinity: an image without valid points would be NaN.
        hidden = valid.flatten(1).unsqueeze(1) <= 0
        maps = [x.masked_fill(hidden, torch.finfo(x.dtype).min / 2)
                for x in maps]
    log_q, log_p = (x.log_softmax(2) for x in maps)
    return (log_p.exp() *
            (log_p - log_q)).sum(2).mean(1) * temperature**2


def _needs_score_maps(name: str, axes: int) -> None:
    if axes < 1:
        raise ConfigError(
            'CWDLogitLoss compares score maps [B, C, H, W] over space, but '
            f'the class scores of {name!r} are one vector an image; use '
            'KDLoss, DISTLoss or DKDLoss')
