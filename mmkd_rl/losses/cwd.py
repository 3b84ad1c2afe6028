r"""Channel-wise distillation (Shu et al. 2021, arXiv:2011.13256, Eqs. 4, 5).

.. math::
    L_m = \frac{T^2}{D} \sum_d KL(\phi(F_m^d) \| \phi(r_m(F_S)^d)),
    \quad \phi(x)_i = softmax_i(x_i / T)

with the softmax over space: each channel becomes a distribution over pixels,
which does not change if a constant is added to the channel. One number per
sample and teacher. The loss of a map of a single pixel is zero; vectors are
refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmkd_rl.losses.base import FeatureTerm, mean_over_levels
from mmkd_rl.options import ConfigError, NonNegative, Positive
from mmkd_rl.records import OutputSpec, Pair, Pairs, Truth
from mmkd_rl.registry import MODELS


@MODELS.register_module()
class CWDLoss(FeatureTerm):
    """KL divergence between channels of student and teacher over space.

    Args:
        temperature: T; the authors' is 1 for features of detectors (and 4
            for logits on Cityscapes).
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller. The
            authors' is 5 (and 3), with these temperatures.
    """

    def __init__(self,
                 temperature: Positive = 1.0,
                 loss_weight: NonNegative = 5.0) -> None:
        super().__init__(loss_weight)
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
                _needs_space(spec.name, len(shape) - 1)
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
        _needs_space('a pair', pair.teacher.ndim - 2)
        return channel_divergence(pair.student, pair.teacher,
                                  self.temperature, pair.valid)


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


def _needs_space(name: str, dimensions: int) -> None:
    if dimensions < 1:
        raise ConfigError(
            'CWDLoss needs maps [B, D, H, W], but the feature '
            f'of {name!r} is a vector; tap a layer before the pooling with '
            "taps=dict(feature='...'), or use FitNetLoss or NDLoss")
