"""Q: bring a teacher's layer to the shape of a student's (Knowledge Flow,
Sec. 3.2).

Q_j(l) z(l) is a full matrix for vectors, a 1x1 convolution and a resize for
maps, and a linear map for tokens, whose class token has a matrix of its own.
Kinds may be mixed: a vector is spread over a map, a map is averaged to a
vector, tokens are laid out on their grid.

Legend: B batch, D channels of the student, E channels of the teacher, H W
space, L tokens of which the first K belong to no place (class tokens).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What the axes of a layer mean, by their number.
KINDS = {2: 'vector', 3: 'tokens', 4: 'map'}


@dataclass(frozen=True)
class Layout:
    """What a layer's tensor is.

    Attributes:
        kind: ``'vector'`` [B, D], ``'tokens'`` [B, L, D] or ``'map'``
            [B, D, H, W].
        channels: D.
        extra: K, tokens without a place.
        shape: The whole shape without B when it was looked at.
        image: (H, W) of the images, where they are brought to one size
            before; ``None``: as they come.
    """
    kind: str
    channels: int
    extra: int = 0
    shape: tuple[int, ...] = ()
    image: tuple[int, int] | None = None

    @classmethod
    def of(cls, tensor: Tensor, what: str, extra: int | None = None,
           image: tuple[int, int] | None = None,
           resized: tuple[int, int] | None = None,
           batch: int | None = None) -> Layout:
        """Read it off a tensor.

        Args:
            tensor: The layer's.
            what: Its name, for messages.
            extra: K, where the network says so.
            image: (H, W) of the images, for the tokens' grid.
            resized: To which size the network brings all images.
            batch: B, where it is known.

        Raises:
            ValueError: A tensor that no Q can join to another.
        """
        if not isinstance(tensor, Tensor) or tensor.ndim not in KINDS or \
                not tensor.is_floating_point() or \
                tensor.shape[0] != (batch or tensor.shape[0]):
            got = f'{tuple(tensor.shape)} of {tensor.dtype}' if isinstance(
                tensor, Tensor) else f'a {type(tensor).__name__}'
            got += f' for {batch} images' if batch else ''
            raise ValueError(
                f'{what} gives {got}; no Q can join that. Link a layer that '
                'gives a vector [B, D], tokens [B, L, D] or a map '
                '[B, D, H, W] of floating point numbers')
        kind, shape = KINDS[tensor.ndim], tuple(tensor.shape[1:])
        if kind != 'tokens':
            return cls(kind, shape[0], 0, shape)
        if extra is None:
            image = resized or image
            extra = min(
                (k for k in range(3) if k < shape[0]),
                key=lambda k: (_skew(shape[0] - k, image), k))
        return cls(kind, shape[1], extra, shape, resized)

    def __str__(self) -> str:
        return 'x'.join(map(str, self.shape))


@lru_cache(maxsize=256)
def grid_of(count: int, image: tuple[int, int] | None) -> tuple[int, int]:
    """(h, w) with h * w = count, as near as can be to the image's sides.

    Args:
        count: Tokens with a place.
        image: (H, W); ``None``: square.
    """
    height, width = image or (1, 1)
    want = math.log(height / width)
    pairs = [
        pair for a in range(1, math.isqrt(count) + 1) if count % a == 0
        for pair in ((a, count // a), (count // a, a))
    ]
    return min(pairs, key=lambda p: abs(math.log(p[0] / p[1]) - want))


def _skew(count: int, image: tuple[int, int] | None) -> float:
    """How far the best grid's sides are from the image's; coarse, so that
    rounding of the sides does not count."""
    h, w = grid_of(count, image)
    height, width = image or (1, 1)
    return round(abs(math.log(h / w) - math.log(height / width)), 1)


class Transform(nn.Module):
    """One Q.

    Args:
        student: Layout of the student's layer.
        teacher: Layout of the teacher's.

    No bias, as in the paper. Entries start normal with variance 1 / E, so
    that what arrives has the scale of what was sent (the paper does not say).
    The matrix is a parameter of its own and no ``nn.Conv2d``, so that the
    ``init_cfg`` of the backbone that it is joined to does not touch it.
    """

    def __init__(self, student: Layout, teacher: Layout) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.weight = _matrix(student.channels, teacher.channels)
        # Class tokens, where the student has any.
        self.extra_weight = _matrix(student.channels, teacher.channels) \
            if student.extra else None

    def forward(self, feature: Tensor, like: Tensor,
                share: Tensor | float | None = None,
                image: tuple[int, int] | None = None) -> Tensor:
        """share * Q z.

        Args:
            feature: z of the teacher.
            like: z of the student, whose shape and kind are wanted.
            share: p_w(l); ``None``: one.
            image: (H, W) of the images, for grids of tokens.

        Returns:
            Something that can be added to ``like``: of its shape, or with
            sides of 1 where a vector is spread.
        """
        weight: Tensor = self.weight
        extra: Tensor | None = self.extra_weight
        # What is smaller is scaled, the matrix or what comes out of it.
        behind = share is not None and like.numel() < weight.numel()
        if share is not None and not behind:
            weight = share * weight
            extra = None if extra is None else share * extra
        if self.student.kind == 'vector':
            out = F.linear(self._pooled(feature), weight)
        elif self.student.kind == 'map':
            size = like.shape[2], like.shape[3]
            out = self._to_map(feature, size, weight, image)
        else:
            out = self._to_tokens(feature, like.shape[1], weight, extra,
                                  image)
        return share * out if behind else out

    def _to_map(self, feature: Tensor, size: tuple[int, int], weight: Tensor,
                image: tuple[int, int] | None) -> Tensor:
        if self.teacher.kind == 'vector':
            return F.linear(feature, weight)[..., None, None]
        maps = self._as_map(feature, image)
        kernel = weight[..., None, None]
        # Both orders give the same; the smaller map goes through the matrix.
        if maps.shape[-2] * maps.shape[-1] > size[0] * size[1]:
            return F.conv2d(resize(maps, size), kernel)
        return resize(F.conv2d(maps, kernel), size)

    def _to_tokens(self, feature: Tensor, length: int, weight: Tensor,
                   extra_weight: Tensor | None,
                   image: tuple[int, int] | None) -> Tensor:
        count = length - self.student.extra
        if self.teacher.kind == 'vector':
            placed = F.linear(feature, weight)[:, None].expand(-1, count, -1)
        elif self.teacher.kind == 'tokens' and \
                feature.shape[1] - self.teacher.extra == count and \
                self._grid(count, image) == grid_of(count, image):
            placed = F.linear(feature[:, self.teacher.extra:], weight)
        else:
            maps = resize(self._as_map(feature, image), grid_of(count, image))
            placed = F.linear(maps.flatten(2).mT, weight)
        if extra_weight is None:
            return placed
        if self.teacher.kind == 'tokens' and \
                self.teacher.extra == self.student.extra:
            extra = feature[:, :self.teacher.extra]
        else:
            extra = self._pooled(feature)[:, None].expand(
                -1, self.student.extra, -1)
        return torch.cat([F.linear(extra, extra_weight), placed], 1)

    def _as_map(self, feature: Tensor,
                image: tuple[int, int] | None) -> Tensor:
        if self.teacher.kind == 'map':
            return feature
        tokens = feature[:, self.teacher.extra:]
        return tokens.mT.unflatten(2, self._grid(tokens.shape[1], image))

    def _grid(self, count: int,
              image: tuple[int, int] | None) -> tuple[int, int]:
        """Of the teacher's tokens."""
        return grid_of(count, self.teacher.image or image)

    def _pooled(self, feature: Tensor) -> Tensor:
        """[B, E]: a class token where there is one, else the mean."""
        if self.teacher.kind == 'map':
            return feature.flatten(2).mean(2)
        if self.teacher.kind == 'tokens':
            return feature[:, 0] if self.teacher.extra else feature.mean(1)
        return feature


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average down or interpolate up, [B, D, *size]."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    if maps.shape[-2] >= size[0] and maps.shape[-1] >= size[1]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=size, mode='bilinear',
                         align_corners=False)


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) / math.sqrt(columns))
