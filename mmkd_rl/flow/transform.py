"""Q: bring a teacher's layer to the shape of a student's (Knowledge Flow,
Sec. 3.2).

Q_j(l) z(l) is a full matrix for vectors, a 1x1 convolution and a resize for
maps, and a linear layer for tokens, with a separate matrix for class tokens.
Kinds may be mixed: a vector is broadcast over a map, a map is averaged to a
vector, tokens are arranged on their grid.

Legend: B batch, D channels of the student, E channels of the teacher, H W
space, L tokens of which the first K have no position (class tokens).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Kind of a layer by its number of axes.
KINDS = {2: 'vector', 3: 'tokens', 4: 'map'}


@dataclass(frozen=True)
class Layout:
    """Kind and shape of a layer's tensor.

    Attributes:
        kind: ``'vector'`` [B, D], ``'tokens'`` [B, L, D] or ``'map'``
            [B, D, H, W].
        channels: D.
        extra: K, number of tokens without a position.
        shape: Shape without B, on the probing images.
        image: (H, W) to which the network resizes all images; ``None``: it
            does not resize them.
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
        """Layout of a layer's tensor.

        Args:
            tensor: The layer's tensor.
            what: Name of the layer, for messages.
            extra: K, if the network has an attribute with it; ``None``:
                guessed from the number of tokens.
            image: (H, W) of the images, for the tokens' grid.
            resized: (H, W) to which the network resizes all images.
            batch: B, if known.

        Raises:
            ValueError: The tensor is no vector, map or tokens of floating
                point numbers with batch size B.
        """
        if not isinstance(tensor, Tensor) or tensor.ndim not in KINDS or \
                not tensor.is_floating_point() or \
                tensor.shape[0] != (batch or tensor.shape[0]):
            got = f'{tuple(tensor.shape)} of {tensor.dtype}' if isinstance(
                tensor, Tensor) else f'a {type(tensor).__name__}'
            got += f' for {batch} images' if batch else ''
            raise ValueError(
                f'{what} gives {got}, which cannot be mixed with another '
                'layer. Link a layer that gives a vector [B, D], tokens '
                '[B, L, D] or a map [B, D, H, W] of floating point numbers')
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
    """(h, w) with h * w = count and the aspect ratio closest to the image's.

    Args:
        count: Number of tokens with a position.
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
    """Difference of aspect ratio between the best grid and the image, in log;
    rounded, so that rounded sides of the grid make no difference."""
    h, w = grid_of(count, image)
    height, width = image or (1, 1)
    return round(abs(math.log(h / w) - math.log(height / width)), 1)


class Transform(nn.Module):
    """One Q.

    Args:
        student: Layout of the student's layer.
        teacher: Layout of the teacher's layer.

    No bias, as in the paper. Entries are initialised normal with variance
    1 / E, which keeps the scale of the features (the paper does not say). The
    matrix is a plain parameter and no ``nn.Conv2d``, so that the backbone's
    ``init_cfg`` does not initialise it again.
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
            like: z of the student; the result gets its kind and size.
            share: p_w(l); ``None``: one.
            image: (H, W) of the images, for grids of tokens.

        Returns:
            A tensor that can be added to ``like``: of the same shape, or
            [B, D, 1, 1] where a vector is broadcast over a map.
        """
        weight: Tensor = self.weight
        extra: Tensor | None = self.extra_weight
        # Scale the smaller tensor: the matrix or the output.
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
        # Both orders give the same; convolve the smaller map.
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
        """Grid of the teacher's tokens."""
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
