"""Teachers that see large images through a sliding window.

A segmentor whose config says ``test_cfg=dict(mode='slide', crop_size=...,
stride=...)`` was made for images of the size of its crops: position
embeddings, pooling pyramids and the share of an image that it sees fit these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

#: Windows of at least this step start at multiples of it, and so at a cell of
#: each map; but not the last one, which ends with the image.
_GRID = 32


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

    def places(self, height: int, width: int) -> Places:
        """Where the windows lie in an image; all have one size, that of the
        image where it is smaller."""
        return Places(height, width, *(
            _slices(*args) for args in zip(
                (height, width), self.size, self.stride)))


@dataclass(frozen=True)
class Places:
    """Windows in an image: each of the rows with each of the columns.

    Attributes:
        height: Of the image.
        width: Of the image.
        rows: Slices of pixels, from top to bottom.
        columns: Slices of pixels, from left to right.
    """
    height: int
    width: int
    rows: list[slice]
    columns: list[slice]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def cut(self, images: Tensor) -> list[Tensor]:
        """The windows of images [B, 3, H, W]."""
        return [images[:, :, row, column]
                for row, column in product(self.rows, self.columns)]

    def stitch(self, tensors: Sequence[Tensor]) -> Tensor:
        """One map of the maps of all windows, averaged where they overlap.

        Args:
            tensors: Of each window a map [B, D, h, w], or a vector [B, D],
                which is averaged over windows.

        Raises:
            ValueError: A tensor is neither.
        """
        first = tensors[0]
        if first.ndim == 2:
            return torch.stack(list(tensors)).mean(0)
        if first.ndim != 4:
            raise ValueError(
                f'a tensor of shape {tuple(first.shape)} cannot be put '
                'together from the windows of a large image; tap a map '
                "[B, D, H, W], or let the teacher see whole images with "
                "test_cfg=dict(mode='whole') in its config")
        height, rows = _cells(self.rows, self.height, first.shape[2])
        width, columns = _cells(self.columns, self.width, first.shape[3])
        total = first.new_zeros(*first.shape[:2], height, width)
        count = first.new_zeros(height, width)
        for tensor, (row, column) in zip(tensors, product(rows, columns)):
            total[:, :, row, column] += tensor
            count[row, column] += 1
        return total / count


def _slices(length: int, size: int, stride: int) -> list[slice]:
    size = min(size, length)
    # Not more than a window, or pixels between windows were not seen.
    step = min(stride, size)
    step = step // _GRID * _GRID or step
    starts = [*range(0, length - size, step), length - size]
    return [slice(start, start + size) for start in starts]


def _cells(places: Sequence[slice], length: int, cells: int
           ) -> tuple[int, list[slice]]:
    """Cells of the whole map along an axis, and those of each window.

    Args:
        places: Pixels of each window.
        length: Pixels of the image.
        cells: Cells of a window.
    """
    pixels = places[0].stop - places[0].start
    stride, ends_partly = _stride(pixels, cells)
    full = -(-length // stride) if ends_partly else length // stride
    found: list[slice] = []
    for place in places:
        first = full - cells if place.stop == length else \
            int(place.start / stride + .5)
        # No gap where windows do not overlap and a part of a cell is lost.
        first = min(max(first, 0), found[-1].stop if found else 0)
        found.append(slice(first, first + cells))
    return found[-1].stop, found


def _stride(pixels: int, cells: int) -> tuple[int, bool]:
    """Pixels from one cell to the next, and whether a part of a stride at the
    end has a cell. Sides such as 769 are no multiples of a network's stride:
    97 cells of stride 8."""
    power = 1
    while power <= 2 * pixels:
        if cells in (-(-pixels // power), pixels // power):
            return power, cells == -(-pixels // power)
        power *= 2
    stride = max(1, int(pixels / cells + .5))
    return stride, cells == -(-pixels // stride)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)
