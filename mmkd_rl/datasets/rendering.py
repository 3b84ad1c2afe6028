"""Draw an 8x8 scan of a digit into a colour image.

A scan becomes a *coverage* map (float32, [H, W], 0 = paper, 1 = ink) by one
seeded geometric change: turn, stretch, shear, shift and a smooth (elastic)
wobble. Coverage maps are then painted over a background with colours, clutter
and noise. One digit on 32x32 pixels is a sample of
:class:`~mmkd_rl.datasets.DigitsDataset`; several on 128x128 are a scene
(:mod:`mmkd_rl.datasets.scenes`), so both show the same kind of digit.

Every function draws only from the :class:`numpy.random.Generator` that it is
given: the same generator state gives the same pixels. Images are [H, W, 3]
float32 in BGR order with values in [0, 255] until :func:`finish` rounds them.
"""

from __future__ import annotations

import cv2
import numpy as np

#: Ink covers a pixel for a mask from this coverage on.
INK = 0.4


def coverage(scan: np.ndarray,
             rng: np.random.Generator,
             shape: tuple[int, int],
             centre: tuple[float, float],
             extent: float,
             turn: float = 20.,
             shear: float = .25,
             stretch: float = .2,
             wobble: float = .35) -> np.ndarray:
    """Warp one scan onto a canvas.

    Args:
        scan: Ink of the scan, [8, 8], values in [0, 1].
        rng: Source of all that is random.
        shape: Height and width of the canvas in pixels.
        centre: Where the scan's middle goes, (x, y) in pixels.
        extent: Side that the 8 scan pixels cover on the canvas, in pixels.
        turn: Largest rotation either way, in degrees.
        shear: Largest horizontal shear either way, as a slope.
        stretch: Largest relative change of each side.
        wobble: Standard deviation of the elastic shift, in scan pixels.

    Returns:
        Coverage of shape ``shape``, float32 in [0, 1].
    """
    angle = np.deg2rad(rng.uniform(-turn, turn))
    cos, sin = np.cos(angle), np.sin(angle)
    linear = (
        np.array([[cos, -sin], [sin, cos]])
        @ np.array([[1., rng.uniform(-shear, shear)], [0., 1.]])
        @ np.diag(extent / 8 * rng.uniform(1 - stretch, 1 + stretch, 2)))
    # `remap` needs the position in the scan of each canvas pixel.
    back = np.linalg.inv(linear)
    y, x = np.ogrid[:shape[0], :shape[1]]
    x, y = x - centre[0], y - centre[1]
    grid = rng.normal(0., wobble, (2, 4, 4)).astype(np.float32)
    shift = [
        cv2.resize(g, shape[::-1], interpolation=cv2.INTER_CUBIC)
        for g in grid
    ]
    map_x = (back[0, 0] * x + back[0, 1] * y + 3.5).astype(np.float32)
    map_y = (back[1, 0] * x + back[1, 1] * y + 3.5).astype(np.float32)
    out = cv2.remap(
        scan.astype(np.float32), map_x + shift[0], map_y + shift[1],
        cv2.INTER_CUBIC)
    # A scan's strokes are grey at their rims; steepening them gives the
    # enlarged digit an edge.
    return np.clip((out - INK) * 2.5 + .5, 0., 1.)


def background(rng: np.random.Generator,
               shape: tuple[int, int]) -> np.ndarray:
    """A smooth field of colours, [H, W, 3]: uneven light on tinted paper."""
    base = rng.uniform(20, 140, 3)
    field = base + rng.normal(0., 20., (3, 3, 3))
    return cv2.resize(
        field.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)


def ink_colour(rng: np.random.Generator, paper: np.ndarray,
               contrast: float) -> np.ndarray:
    """A random colour (BGR) that is lighter than ``paper``.

    Args:
        rng: Source of all that is random.
        paper: Mean colour below the digit, BGR.
        contrast: By how much at least, in grey levels (mean of the channels).
    """
    while True:
        colour = rng.uniform(40, 255, 3)
        if (colour - paper).mean() >= contrast:
            return colour


def paint(image: np.ndarray, cover: np.ndarray,
          colour: np.ndarray) -> np.ndarray:
    """Blend ``colour`` into ``image`` with opacity ``cover``."""
    return image + cover[..., None] * (colour.astype(np.float32) - image)


def clutter(image: np.ndarray, rng: np.random.Generator, scans: np.ndarray,
            pieces: int) -> np.ndarray:
    """Draw clutter: strokes, blobs and fragments of other digits.

    Args:
        image: [H, W, 3], changed in place and returned.
        rng: Source of all that is random.
        scans: [N, 8, 8], where the fragments are cut from.
        pieces: Number of objects to draw.
    """
    height, width = image.shape[:2]
    for _ in range(pieces):
        colour = rng.uniform(0, 255, 3)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        kind = rng.integers(3)
        if kind == 0:  # a stroke of 6 to 20 pixels
            angle, length = rng.uniform(0, np.pi), rng.uniform(6, 20)
            end = (int(x + length * np.cos(angle)),
                   int(y + length * np.sin(angle)))
            image = np.ascontiguousarray(image, np.float32)
            cv2.line(image, (int(x), int(y)), end, colour.tolist(),
                     int(rng.integers(1, 3)))
        elif kind == 1:  # a blob of 1 to 3 pixels radius
            image = np.ascontiguousarray(image, np.float32)
            cv2.circle(image, (int(x), int(y)), int(rng.integers(1, 4)),
                       colour.tolist(), -1)
        else:  # a quarter of another digit
            scan = np.zeros((8, 8), np.float32)
            row, column = rng.integers(0, 5, 2)
            scan[row:row + 4, column:column + 4] = scans[rng.integers(
                len(scans))][row:row + 4, column:column + 4]
            cover = coverage(scan, rng, (height, width), (x, y),
                             rng.uniform(16, 30))
            image = paint(image, cover, colour)
    return image


def finish(image: np.ndarray, rng: np.random.Generator,
           noise: float) -> np.ndarray:
    """Add the camera's noise (standard deviation in grey levels); uint8."""
    image = image + rng.normal(0., noise, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def render_digit(scan: np.ndarray,
                 rng: np.random.Generator,
                 scans: np.ndarray,
                 size: int = 32) -> np.ndarray:
    """One digit in its clutter: a sample for classification.

    Args:
        scan: The digit, [8, 8], values in [0, 1].
        rng: Source of all that is random.
        scans: [N, 8, 8], where clutter takes its fragments from. They should
            be of the same split as the digit.
        size: Side of the image in pixels.

    Returns:
        [size, size, 3] uint8, BGR.
    """
    shape = (size, size)
    image = background(rng, shape)
    image = clutter(image, rng, scans, int(rng.integers(1, 4)))
    middle = size / 2 - .5
    cover = coverage(
        scan, rng, shape,
        (middle + rng.uniform(-3, 3), middle + rng.uniform(-3, 3)),
        extent=rng.uniform(.6, .95) * size)
    colour = ink_colour(rng, image.mean((0, 1)), contrast=45.)
    image = paint(image, cover, colour)
    # What is drawn last hides parts of the digit.
    image = clutter(image, rng, scans, int(rng.integers(0, 2)))
    return finish(image, rng, noise=rng.uniform(4, 16))
