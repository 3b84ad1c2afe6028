"""Teachers that see large images through a sliding window.

A segmentor whose config says ``test_cfg=dict(mode='slide', crop_size=...,
stride=...)`` was made for images of the size of its crops: position
embeddings, pooling pyramids and the share of an image that it sees fit these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Windows start at multiples of it, so that they start at a cell of each map;
#: but not the last ones, which end with the image.
_GRID = 32

Place = tuple[slice, slice]


@dataclass(frozen=True)
class SlidingWindow:
    """Size and step of a teacher's window, (H, W) in pixels each."""
    size: tuple[int, int]
    stride: tuple[int, int]

    @classmethod
    def of(cls, model: nn.Module) -> SlidingWindow | None:
        """The window of a segmentor; ``None``: it sees whole images."""
        cfg = getattr(model, 'test_cfg', None)
        if not isinstance(cfg, Mapping) or cfg.get('mode') != 'slide':
            return None
        return cls(_pair(cfg['crop_size']), _pair(cfg['stride']))

    def places(self, height: int, width: int) -> list[Place]:
        """Rows and columns of each window in an image; all have one size, that
        of the image where it is smaller."""
        rows, columns = (_places(*args) for args in zip(
            (height, width), self.size, self.stride))
        return [(row, column) for row in rows for column in columns]


def stitched(tensors: Sequence[Tensor], places: Sequence[Place],
             height: int, width: int) -> Tensor:
    """One map of the maps of all windows, averaged where they overlap.

    Args:
        tensors: Of each window a map [B, D, h, w], or something without space
            (a vector), which is averaged over windows.
        places: See :meth:`SlidingWindow.places`.
        height: Of the image.
        width: Of the image.
    """
    first = tensors[0]
    if first.ndim != 4:
        return torch.stack(list(tensors)).mean(0)
    sizes = [(first.shape[2 + i], place.stop - place.start)
             for i, place in enumerate(places[0])]
    cells, pixels = zip(*sizes)
    full = [max(c, round(n * c / p))
            for n, c, p in zip((height, width), cells, pixels)]
    total = first.new_zeros(*first.shape[:2], *full)
    count = first.new_zeros(full)
    for tensor, place in zip(tensors, places):
        at = tuple(_cells(p.start, *args)
                   for p, args in zip(place, zip(cells, pixels, full)))
        total[:, :, at[0], at[1]] += tensor
        count[at] += 1
    return total / count


def _places(length: int, size: int, stride: int) -> list[slice]:
    size = min(size, length)
    step = max(1, stride // _GRID * _GRID or stride)
    starts = [*range(0, length - size, step), length - size]
    return [slice(start, start + size) for start in starts]


def _cells(start: int, cells: int, pixels: int, full: int) -> slice:
    first = min(round(start * cells / pixels), full - cells)
    return slice(first, first + cells)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)
