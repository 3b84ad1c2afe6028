r"""FGD (Yang et al. 2022, arXiv:2111.11837, "Focal and Global Knowledge
Distillation for Detectors", Eqs. 3 to 13).

With s = r_m(F_S) and t = F_m of one level, n valid pixels, D channels:

.. math::
    A^{sp}(F) = n \, softmax_x \big( mean_d |F| / T \big), \quad
    A^{ch}(F) = D \, softmax_d \big( mean_x |F| / T \big)

.. math::
    L_{fea} = \sum_{x,d} (\alpha M_x + \beta B_x) \, A^{sp}_x(t) A^{ch}_d(t)
    \, (t - s)^2, \qquad
    L_{at} = \gamma \big( |A^{sp}(t) - A^{sp}(s)|_1 +
    |A^{ch}(t) - A^{ch}(s)|_1 \big)

.. math::
    L_{glo} = \lambda \sum_{x,d} (R_t(t) - R_s(s))^2, \quad
    R(F) = F + W_2 \, ReLU(LN(W_1 \textstyle\sum_x softmax_x(W_0 F)_x F_x))

M gives each pixel of an object's box 1 / (cells of the box), of several boxes
the largest value; B gives each of the other valid pixels 1 / (their number).
R is a global context block (Cao et al. 2019) for student and teacher each. The
three parts are summed over the levels. One number per image and teacher.

**Without boxes** (samples have none): M is the teacher's own spatial
attention, A^{sp} / n, which sums to one, and B is zero.

Deviations from the authors' code: boxes are placed by the size of the padded
image, to which the maps belong, and not by that of the image in it; padding is
left out of softmax, counts and sums; there always is a projector r_m; the
finer of two maps is averaged down. As there, and unlike other terms here,
levels are added up, so that the authors' alpha to lambda keep their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_rl.losses.base import FeatureTerm, level_pairs
from mmkd_rl.losses.projector import mapped_shape
from mmkd_rl.options import ConfigError, NonNegative, Positive
from mmkd_rl.records import OutputSpec, Pair, Pairs, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.objects import covered_cells

#: Foreground and background of a level, [B, H, W] each.
Regions = tuple[Tensor, Tensor]


@MODELS.register_module()
class FGDLoss(FeatureTerm):
    """Error of features where objects are and where the teacher looks, and of
    their relation to the whole image.

    Args:
        alpha: Weight of foreground. The authors' values of alpha, beta, gamma
            and lambda are 1e-3, 5e-4, 1e-3, 5e-6 for one-stage detectors with
            anchors, 1.6e-3, 8e-4, 8e-4, 8e-6 for those without, and 5e-5,
            2.5e-5, 5e-5, 5e-7 for two-stage detectors.
        beta: Weight of background.
        gamma: Weight of the attentions' distance.
        lambda_global: lambda.
        temperature: T.
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller.
        standardize: See :class:`FeatureTerm`.

    Raises:
        ConfigError: All four weights are zero.
    """

    reads_objects = True
    instead_of_vectors = 'FitNetLoss, PKDLoss or NDLoss'

    def __init__(self,
                 alpha: NonNegative = 1e-3,
                 beta: NonNegative = 5e-4,
                 gamma: NonNegative = 1e-3,
                 lambda_global: NonNegative = 5e-6,
                 temperature: Positive = 0.5,
                 loss_weight: NonNegative = 1.0,
                 standardize: bool = False) -> None:
        super().__init__(loss_weight, standardize)
        if not alpha + beta + gamma + lambda_global:
            raise ConfigError('alpha', 'alpha, beta, gamma and lambda_global '
                              'are all zero: there is nothing to distil')
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.lambda_global, self.temperature = lambda_global, temperature

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Make the projectors and the context blocks.

        Raises:
            ConfigError: See :meth:`FeatureTerm.build`.
        """
        super().build(student, teachers, projector)
        if not self.lambda_global:
            return
        #: [M][L][student, teacher].
        self.contexts = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList(GlobalContext(mapped_shape(*shapes)[0])
                              for _ in range(2))
                for shapes in level_pairs(student, t)) for t in teachers)

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """L_m, [B, M], in float32."""
        regions: dict[tuple[int, ...], Regions] = {}
        return torch.stack([
            torch.stack([self._level(pair, truth, regions, m, level)
                         for level, pair in enumerate(levels)]).sum(0)
            for m, levels in enumerate(pairs)
        ], 1)

    def _level(self, pair: Pair, truth: Truth,
               regions: dict[tuple[int, ...], Regions], teacher: int,
               level: int) -> Tensor:
        """The three parts of one level, [B]."""
        valid = torch.ones_like(pair.teacher[:, 0], dtype=torch.float32) \
            if pair.valid is None else (pair.valid > 0).float()
        s, t = (torch.where(valid[:, None] > 0, x.float(), 0.)
                for x in (pair.student, pair.teacher))
        space_t, channels_t = attention(t, valid, self.temperature)
        space_s, channels_s = attention(s, valid, self.temperature)
        if truth.targets is None:
            inside = space_t / valid.sum((1, 2), keepdim=True).clamp_min(1)
            outside = torch.zeros_like(inside)
        else:
            size = tuple(t.shape[2:])
            if size not in regions:
                regions[size] = object_regions(truth.targets, valid)
            inside, outside = regions[size]
        weight = (self.alpha * inside + self.beta * outside) * space_t
        error = ((t - s).square() * channels_t[:, :, None, None]).sum(1)
        loss = (error * weight).sum((1, 2)) + self.gamma * (
            (space_t - space_s).abs().sum((1, 2)) +
            (channels_t - channels_s).abs().sum(1))
        if not self.lambda_global:
            return loss
        own, theirs = self.contexts[teacher][level]  # type: ignore[index]
        gap = (theirs(t, valid) - own(s, valid)) * valid[:, None]
        return loss + self.lambda_global * gap.square().sum((1, 2, 3))


class GlobalContext(nn.Module):
    """R, a global context block (Cao et al. 2019, arXiv:1904.11492).

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # The variance of a single number is zero.
        inner = max(2, width // 2)
        self.look = nn.Conv2d(width, 1, 1)
        self.add = nn.Sequential(
            nn.Linear(width, inner), nn.LayerNorm(inner), nn.ReLU(),
            nn.Linear(inner, width))
        nn.init.kaiming_normal_(self.look.weight, mode='fan_in')
        nn.init.zeros_(self.look.bias)  # type: ignore[arg-type]
        # As in the authors' code: R is the identity at the start.
        nn.init.zeros_(self.add[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.add[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """[B, D, H, W] to the same shape.

        Args:
            x: A map.
            valid: 1 where a pixel is valid, [B, H, W].
        """
        shares_BP = _softmax(self.look(x)[:, 0], valid).flatten(1)
        context_BD = torch.einsum('bdp,bp->bd', x.flatten(2), shares_BP)
        return x + self.add(context_BD)[:, :, None, None]


def attention(x: Tensor, valid: Tensor,
              temperature: float) -> tuple[Tensor, Tensor]:
    """A^sp [B, H, W], zero at invalid pixels, and A^ch [B, D].

    Args:
        x: A map [B, D, H, W], zero at invalid pixels.
        valid: 1 where a pixel is valid, [B, H, W].
        temperature: T.
    """
    size = x.abs()
    count_B = valid.sum((1, 2)).clamp_min(1)
    space = _softmax(size.mean(1) / temperature,
                     valid) * count_B[:, None, None]
    channels_BD = size.sum((2, 3)) / count_B[:, None] / temperature
    return space, channels_BD.softmax(1) * x.shape[1]


def object_regions(objects_BN5: Tensor, valid: Tensor) -> Regions:
    """M and B, [B, H, W] each; an image without objects has zeros for M.

    Args:
        objects_BN5: See :func:`mmkd_rl.utils.objects.objects_of`.
        valid: 1 where a pixel is valid, [B, H, W].
    """
    inside = []
    for objects_N5, valid_HW in zip(objects_BN5, valid):
        cells_NHW = covered_cells(objects_N5, valid_HW.shape).float()
        area_N11 = cells_NHW.sum((1, 2), keepdim=True).clamp_min(1)
        # A row of zeros, since there may be no objects.
        inside.append(F.pad(cells_NHW / area_N11,
                            (0, 0, 0, 0, 0, 1)).amax(0) * valid_HW)
    foreground = torch.stack(inside)
    rest = (foreground == 0) * valid
    return foreground, rest / rest.sum((1, 2), keepdim=True).clamp_min(1)


def _softmax(x: Tensor, valid: Tensor) -> Tensor:
    """Softmax over valid pixels, [B, H, W]; zeros for an image without."""
    hidden = (valid <= 0).flatten(1)
    # Not minus infinity: an image without valid pixels would be NaN.
    low = torch.finfo(x.dtype).min / 2
    shares = x.flatten(1).masked_fill(hidden, low).softmax(1)
    return shares.masked_fill(hidden, 0.).view_as(x)
