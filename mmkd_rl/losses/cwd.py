r"""Channel-wise distillation (Shu et al. 2021, arXiv:2011.13256, Eqs. 4, 5).

.. math::
    L_m = \frac{T^2}{D} \sum_d KL(\phi(F_m^d) \| \phi(r_m(F_S)^d)),
    \quad \phi(x)_i = softmax_i(x_i / T)

the softmax being over the points of space: each channel becomes a map of where
it looks, whatever is added to it. One number per sample and teacher. A map
of one point has nothing to say (its loss is zero), a vector has no space.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.records import ModelSpec
from mmkd_rl.registry import MODELS


@MODELS.register_module()
class CWDLoss(nn.Module):
    """KL divergence between where student's and teacher's channels look.

    Args:
        temperature: T; the authors' is 1 for features of detectors (and 4
            for logits on Cityscapes).
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller. The
            authors' is 5 (and 3), with these temperatures.

    Raises:
        ValueError: T is not positive, or the weight negative.
    """

    def __init__(self,
                 temperature: float = 1.0,
                 loss_weight: float = 5.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError('feature_loss.temperature must be > 0, got '
                             f'{temperature}')
        if loss_weight < 0:
            raise ValueError('feature_loss.loss_weight must be >= 0, got '
                             f'{loss_weight}')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def setup(self, student: ModelSpec, teachers: Sequence[ModelSpec]) -> None:
        """Complain about features without space when the model is built.

        Args:
            student: The student's sizes.
            teachers: The teachers'.

        Raises:
            ValueError: Somebody's feature is a vector.
        """
        for spec in (student, *teachers):
            _needs_space(spec.name, len(spec.feature_shape) - 1)
            if spec.feature_shape[1:] == (1, 1):
                print_log(
                    f'feature_loss: CWDLoss compares channels over space, but '
                    f'the feature of {spec.name!r} has one point (when probed '
                    'with images of model.probe_size): its loss is zero. Tap '
                    "an earlier layer with taps=dict(feature='...')",
                    'current', logging.WARNING)

    def forward(self,
                pairs: Sequence[tuple[Tensor, Tensor]],
                targets: Tensor | None = None) -> Tensor:
        """L_m, [B, M], in float32.

        Args:
            pairs: For each teacher r_m(F_S) and F_m, [B, D_m, H, W] both.
            targets: Not needed; every feature loss is given them.

        Raises:
            ValueError: Vectors.
        """
        for _, target in pairs:
            _needs_space('a pair', target.ndim - 2)
        return torch.stack([
            channel_divergence(student, teacher, self.temperature)
            for student, teacher in pairs
        ], 1)


def channel_divergence(student: Tensor, teacher: Tensor,
                       temperature: float) -> Tensor:
    """T^2 times the mean over channels of the divergence over space, [B].

    Args:
        student: [B, D, ...], features or dense logits.
        teacher: Of the same shape.
        temperature: T.
    """
    log_q, log_p = ((x.float().flatten(2) / temperature).log_softmax(2)
                    for x in (student, teacher))
    return (log_p.exp() *
            (log_p - log_q)).sum(2).mean(1) * temperature**2


def _needs_space(name: str, dimensions: int) -> None:
    if dimensions < 1:
        raise ValueError(
            f'feature_loss: CWDLoss needs maps [B, D, H, W], but the feature '
            f'of {name!r} is a vector; tap a layer before the pooling with '
            "taps=dict(feature='...'), or use FitNetLoss or NDLoss")
