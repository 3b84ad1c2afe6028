"""Convert the student's images to each teacher's normalisation and size.

The student's preprocessor has normalised the batch; a teacher may have been
trained with other means, another channel order or another size. Both
normalisations are affine per channel, so one affine map per channel converts
between them, and the original pixels are not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Normalization:
    """x = (pixel - mean) / std per channel, in the network's channel order.

    Attributes:
        mean: Means of the channels, on the scale of 0 to 255.
        std: Standard deviations, on the same scale.
        to_rgb: Whether the preprocessor swaps the loaded (BGR) channels.
    """
    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_rgb: bool

    def __str__(self) -> str:
        mean, std = ([round(v, 2) for v in values]
                     for values in (self.mean, self.std))
        return f'mean={mean}, std={std}, to_rgb={self.to_rgb}'

    def is_close(self, other: Normalization) -> bool:
        """Whether both give nearly the same images."""
        return self.to_rgb == other.to_rgb and \
            len(self.mean) == len(other.mean) and all(
                abs(a - b) < 2. for a, b in zip(
                    (*self.mean, *self.std), (*other.mean, *other.std)))

    def then(self, other: Normalization) -> Normalization:
        """The normalisation by this one and then by another one."""
        mean, std = self.mean, self.std
        if other.to_rgb:
            mean, std = mean[::-1], std[::-1]
        if len(mean) == 1:
            mean, std = mean * len(other.mean), std * len(other.mean)
        theirs = [(values * len(mean) if len(values) == 1 else values)
                  for values in (other.mean, other.std)]
        return Normalization(
            tuple(m + n * s for m, n, s in zip(mean, theirs[0], std)),
            tuple(s * t for s, t in zip(std, theirs[1])),
            self.to_rgb != other.to_rgb)

    @classmethod
    def of(cls, preprocessor: nn.Module | None) -> Normalization | None:
        """Normalisation of a preprocessor of MMEngine, MMPretrain, MMDetection
        or MMSegmentation; ``None``: unknown."""
        if preprocessor is None:
            return None
        # MMSegmentation calls it channel_conversion, with or without OneDL's
        # underscore.
        swap = next((getattr(preprocessor, name) for name in (
            'to_rgb', '_channel_conversion', 'channel_conversion')
            if hasattr(preprocessor, name)), None)
        if swap is None:
            return None
        if not getattr(preprocessor, '_enable_normalize', False):
            return cls((0., 0., 0.), (1., 1., 1.), bool(swap))
        return cls(
            tuple(preprocessor.mean.flatten().tolist()),
            tuple(preprocessor.std.flatten().tolist()), bool(swap))

    @classmethod
    def from_config(cls, cfg: dict, key: str) -> Normalization:
        """From a user's ``dict(mean=..., std=..., to_rgb=...)``.

        Raises:
            ValueError: The dict has another form, or a std is not positive.
        """
        rest = dict(cfg) if isinstance(cfg, dict) else {}
        swap = rest.pop('to_rgb', rest.pop('bgr_to_rgb', False))
        mean, std = (rest.pop(name, None) for name in ('mean', 'std'))
        if rest or not isinstance(swap, bool) or not all(
                map(_are_numbers, (mean, std))) or len(mean) != len(std):
            raise ValueError(
                f'{key} must be dict(mean=[...], std=[...], to_rgb=...) with '
                f'one number a channel, got {cfg!r}')
        if min(std) <= 0:
            raise ValueError(f'{key}.std must be > 0, got {std}')
        return cls(tuple(map(float, mean)), tuple(map(float, std)), bool(swap))


def _are_numbers(values: object) -> bool:
    return isinstance(values, (list, tuple)) and len(values) > 0 and all(
        isinstance(v, (int, float)) and math.isfinite(v) for v in values)


class InputAdapter(nn.Module):
    """Map images normalised for the student to a teacher's normalisation.

    Args:
        source: Normalisation of the student.
        target: Normalisation of the teacher. If one of both is ``None`` they
            are assumed to be the same.
        input_size: (H, W) that the teacher needs; ``None``: no resizing.
        input_scale: Factor by which height and width are multiplied, without
            ``input_size``.
        channels: Number of the teacher's channels, all of which see the
            single one of grey images; ``None``: not known.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self,
                 source: Normalization | None,
                 target: Normalization | None,
                 input_size: tuple[int, int] | None = None,
                 input_scale: float = 1.,
                 channels: int | None = None) -> None:
        super().__init__()
        self.input_size, self.input_scale = input_size, input_scale
        self._given = f'{target}' if source and target else \
            f"the student's, {source}"
        self.swap = self.affine = False
        self.channels = channels
        if source is None or target is None or source == target:
            return
        self.swap = source.to_rgb != target.to_rgb
        mean_s, std_s = torch.tensor(source.mean), torch.tensor(source.std)
        if self.swap:
            mean_s, std_s = mean_s.flip(0), std_s.flip(0)
        mean_t, std_t = torch.tensor(target.mean), torch.tensor(target.std)
        scale, shift = std_s / std_t, (mean_s - mean_t) / std_t
        self.affine = not (torch.equal(scale, torch.ones_like(scale))
                           and torch.equal(shift, torch.zeros_like(shift)))
        self.register_buffer('scale', scale.view(1, -1, 1, 1))
        self.register_buffer('shift', shift.view(1, -1, 1, 1))

    @property
    def description(self) -> str:
        """Normalisation and size of the images that the teacher receives, as
        text. Students with other normalisations give the same text."""
        size = f'{self.input_size}' if self.input_size else \
            f'{self.input_scale} times as large'
        return f'{self._given}, {size}'

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 3, *input_size], or to ``input_scale`` times
        the size."""
        if self.swap:
            images = images.flip(1)
        if self.channels is not None and images.shape[1] == 1:
            images = images.expand(-1, self.channels, -1, -1)
        if self.affine:
            images = images * self.scale + self.shift
        own = tuple(images.shape[-2:])
        size = self.input_size or tuple(
            max(1, round(side * self.input_scale)) for side in own)
        if size != own:
            images = F.interpolate(
                images,
                size=size,
                mode='bilinear',
                align_corners=False,
                antialias=True)
        return images
