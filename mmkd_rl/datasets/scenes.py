"""Scenes of several digits, for detection and segmentation.

Draws a few digits on one larger canvas with
:mod:`~mmkd_rl.datasets.rendering`, and writes images and annotations for
`CocoDataset` of MMDetection and `BaseSegDataset` of MMSegmentation::

    ROOT/scenes.json                what was rendered (the marker)
    ROOT/images/{train,test}/       000000.png ...
    ROOT/masks/{train,test}/        000000.png: 0 background, 1..10 digits
    ROOT/annotations/{train,test}.json    COCO: boxes and masks (RLE)

Training scenes have training scans only, test scenes test scans only. Boxes
and masks cover the *visible* part of a digit: pixels that a later digit covers
belong to the later one.

Usage::

    python -m mmkd_rl.datasets.scenes ROOT [--train N] [--test N] [--seed S]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pydantic import Field

from mmkd_rl.options import Count, Natural, checked
from mmkd_rl.utils.cli import clear_errors

from .digits import CLASSES, SPLITS, load_scans
from .rendering import (
    INK,
    background,
    clutter,
    coverage,
    finish,
    ink_colour,
    paint,
)

MARKER = 'scenes.json'
#: Raise it when the same arguments would draw other pixels than before.
VERSION = 1


def compose(rng: np.random.Generator,
            scans: np.ndarray,
            labels: np.ndarray,
            size: int = 128) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one scene of 3 to 6 digits.

    Args:
        rng: Source of all that is random.
        scans: [N, 8, 8], values in [0, 1], to choose from.
        labels: [N], their classes.
        size: Side of the scene in pixels.

    Returns:
        Image [size, size, 3] uint8 (BGR), visible masks [K, size, size] bool
        that do not overlap, and classes [K].
    """
    shape = (size, size)
    image = background(rng, shape)
    image = clutter(image, rng, scans, int(rng.integers(4, 9)))
    inks = np.zeros((0, *shape), bool)
    whole: list[int] = []  # Ink of each digit before others covered it.
    chosen: list[int] = []
    wanted = int(rng.integers(3, 7))
    for _ in range(8 * wanted):  # A full canvas must not keep us for ever.
        if len(chosen) == wanted:
            break
        index = int(rng.integers(len(scans)))
        extent = rng.uniform(22, 38)
        centre = tuple(rng.uniform(extent / 2, size - extent / 2, 2))
        cover = coverage(scans[index], rng, shape, centre, extent)
        ink = cover > INK
        seen = (inks & ~ink).sum((1, 2))
        if ink.sum() < 40 or np.any(seen < .7 * np.array(whole)):
            continue
        inks = np.concatenate([inks & ~ink, ink[None]])
        whole.append(int(ink.sum()))
        chosen.append(index)
        colour = ink_colour(rng, image[ink].mean(0), contrast=45.)
        image = paint(image, cover, colour)
    return finish(image, rng, rng.uniform(4, 16)), inks, labels[chosen]


@checked
def write_scenes(root: str | Path,
                 train: Count = 400,
                 test: Count = 100,
                 seed: Natural = 0,
                 size: Annotated[int, Field(ge=64)] = 128,
                 split_seed: Natural = 0) -> bool:
    """Write the scenes of both splits, completely or not at all.

    Everything is written into a temporary folder beside ``root``, which is
    renamed at the end. Where ``root`` holds the same scenes already, nothing
    is done; where it holds scenes of other arguments, they are replaced.

    Args:
        root: Folder to write.
        train: Number of training scenes.
        test: Number of test scenes.
        seed: Of the scenes.
        size: Side of a scene in pixels, 64 or more.
        split_seed: Which scans are held out for testing.

    Returns:
        Whether anything was rendered.

    Raises:
        FileExistsError: ``root`` holds something that is not ours.
    """
    root = Path(root)
    marker = dict(
        version=VERSION,
        train=train,
        test=test,
        seed=seed,
        size=size,
        split_seed=split_seed)
    if (root / MARKER).is_file():
        if _read_marker(root) == marker:
            return False
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f'{root} exists and was not written by this command (no {MARKER} '
            'in it); name another folder, or move it away')

    root.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(
        tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
    try:
        new, old = scratch / 'new', scratch / 'old'
        for split, number in zip(SPLITS, (train, test), strict=True):
            _write_split(new, split, number, seed, size, split_seed)
        (new / MARKER).write_text(json.dumps(marker, indent=2) + '\n')
        if root.exists():
            root.rename(old)
        new.rename(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _read_marker(root: Path) -> dict | None:
    try:
        return json.loads((root / MARKER).read_text())
    except ValueError:
        return None


def _write_split(root: Path, split: str, number: int, seed: int, size: int,
                 split_seed: int) -> None:
    _, scans, labels = load_scans(split, split_seed)
    images, masks = root / 'images' / split, root / 'masks' / split
    for folder in (images, masks, root / 'annotations'):
        folder.mkdir(parents=True, exist_ok=True)
    coco: dict = dict(
        images=[],
        annotations=[],
        categories=[
            dict(id=i, name=name, supercategory='digit')
            for i, name in enumerate(CLASSES)
        ])
    for scene in range(number):
        rng = np.random.default_rng((seed, SPLITS.index(split), scene))
        image, inks, classes = compose(rng, scans, labels, size)
        name = f'{scene:06d}.png'
        _write_png(images / name, image)
        class_map = np.zeros((size, size), np.uint8)
        coco['images'].append(
            dict(id=scene, file_name=name, height=size, width=size))
        for ink, label in zip(inks, classes.tolist(), strict=True):
            class_map[ink] = label + 1
            code = coco_mask.encode(np.asfortranarray(ink, np.uint8))
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=scene,
                    category_id=label,
                    bbox=coco_mask.toBbox(code).tolist(),
                    area=int(ink.sum()),
                    iscrowd=0,
                    segmentation=dict(
                        size=[size, size], counts=code['counts'].decode())))
        _write_png(masks / name, class_map)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco))


def _write_png(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f'cannot write {path}')


def main(argv: list[str] | None = None) -> None:
    """Command line, see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', help='folder to write')
    parser.add_argument('--train', type=int, default=400)
    parser.add_argument('--test', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    with clear_errors():
        new = write_scenes(args.root, args.train, args.test, args.seed)
    print(f'{args.root}: {args.train} training and {args.test} test scenes',
          'rendered' if new else 'already there')


if __name__ == '__main__':
    main()
