"""What tools that draw validation images have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_image_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the options of the images to draw, and of the picture's file.

    Args:
        parser: Of a tool's command line.
        out: Default of the file.
    """
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--images', type=int, default=4, metavar='N',
                       help='draw the first N images (default: 4)')
    which.add_argument('--indices', type=int, nargs='+', metavar='I',
                       help='draw these images of the validation data')
    parser.add_argument('-o', '--out', default=out,
                        help='picture to write (default: %(default)s)')


def choose(count: int, images: int, indices: Sequence[int] | None
           ) -> list[int]:
    """Indices of the images to draw.

    Args:
        count: Number of images in the data.
        images: How many of the first ones are drawn, at most all.
        indices: Which ones instead.

    Raises:
        ValueError: An index is not in 0..count-1, or ``images`` < 1.
    """
    if indices is None:
        if images < 1:
            raise ValueError(f'--images must be at least 1, got {images}')
        return list(range(min(images, count)))
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f'--indices must be in 0..{count - 1}, got '
                             f'{index}: the validation data have {count} '
                             'images')
    return list(indices)
