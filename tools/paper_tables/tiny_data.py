"""Tiny data sets in the formats of COCO 2017, Cityscapes, ADE20K and
COCO-Stuff-164k, and configs of detectors and segmentors made small for them.

The images are polygons on noise: they show that a config runs, and numbers
measured on them mean nothing. Folders and file names are those of the data
sets, so that a config needs another ``data_root`` and no other data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config, ConfigDict
from pycocotools import mask as coco_mask

from mmkd_rl.utils.configs import class_name
from paper_tables import images
from paper_tables.cells import check_names

#: Height and width of an image in pixels; COCO has some the other way round.
SHAPE = (96, 128)
#: Height and width of a segmentor's crop in training.
CROP = (64, 64)
TRAIN, VAL = 3, 2
#: Boxes of an image that a detector is trained on, and that it reports.
BOXES = 32
#: COCO has 80 categories, whose ids have gaps.
_COCO_IDS = [i for i in range(1, 91)
             if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


@dataclass(frozen=True)
class Layout:
    """Files and labels of a data set for segmentation.

    Attributes:
        classes: Number of classes.
        first: Label of the first class in the files.
        unlabelled: Label in the files of pixels that have no class.
        image: Path of an image below the data set's folder, of the split
            and of its number ``n``.
        label_map: Path of its label map, likewise.
        splits: Names of the splits for training and validation in the paths.
    """
    classes: int
    first: int
    unlabelled: int
    image: str
    label_map: str
    splits: tuple[str, str]


LAYOUTS = {
    'cityscapes': Layout(
        19, 0, 255,
        'leftImg8bit/{split}/city{n}/city{n}_000000_000019_leftImg8bit.png',
        'gtFine/{split}/city{n}/city{n}_000000_000019_gtFine_labelTrainIds.png',
        ('train', 'val')),
    'ade20k': Layout(
        150, 1, 0, 'images/{split}/ADE_{n:08d}.jpg',
        'annotations/{split}/ADE_{n:08d}.png', ('training', 'validation')),
    'coco_stuff164k': Layout(
        171, 0, 255, 'images/{split}/{n:012d}.jpg',
        'annotations/{split}/{n:012d}_labelTrainIds.png',
        ('train2017', 'val2017')),
}
#: Kind of the data by the class that reads it.
_KINDS = {
    'CocoDataset': 'coco', 'CityscapesDataset': 'cityscapes',
    'ADE20KDataset': 'ade20k', 'COCOStuffDataset': 'coco_stuff164k'}


def kind_of(cfg: Config) -> str:
    """Kind of a config's training data: a name for :func:`write`.

    Raises:
        ValueError: The training data are not COCO, Cityscapes, ADE20K or
            COCO-Stuff-164k.
    """
    for dataset in images.datasets(cfg.train_dataloader.dataset):
        if kind := _KINDS.get(class_name(dataset.get('type'))):
            return kind
    raise ValueError('train_dataloader.dataset: there are tiny data sets for '
                     f'{", ".join(_KINDS)}, got {dataset.get("type")!r}')


# ---- writing -------------------------------------------------------------


def write(kind: str, root: str | Path, seed: int = 0) -> Path:
    """Write a data set of 3 training and 2 validation images.

    Files that are there are overwritten; equal arguments write equal files.

    Args:
        kind: ``'coco'``, ``'cityscapes'``, ``'ade20k'`` or
            ``'coco_stuff164k'``.
        root: Folder of the data set (a config's ``data_root``).
        seed: Of images and labels.

    Returns:
        ``root``.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    check_names('kind', [kind], ['coco', *LAYOUTS], 'tiny_data')
    root = Path(root)
    for split, number in enumerate((TRAIN, VAL)):
        rng = np.random.default_rng((seed, split))
        if kind == 'coco':
            _write_coco(root, ('train2017', 'val2017')[split], number, rng)
        else:
            _write_maps(root, LAYOUTS[kind], split, number, rng)
    return root


def _write_coco(root: Path, split: str, number: int,
                rng: np.random.Generator) -> None:
    """Write a split of COCO: the first image has a crowd as well, the last
    one no annotation."""
    from mmdet.datasets import CocoDataset  # takes seconds
    coco: dict[str, Any] = dict(
        info=dict(description='polygons on noise'), licenses=[],
        images=[], annotations=[], categories=[
            dict(id=i, name=name, supercategory='none') for i, name in zip(
                _COCO_IDS, CocoDataset.METAINFO['classes'], strict=True)])
    for n in range(number):
        shape = SHAPE if n % 2 == 0 else SHAPE[::-1]
        image, objects = _scene(rng, shape, 80)
        image_id = 1000 + 37 * n
        name = f'{image_id:012d}.jpg'
        _write_image(root / split / name, image)
        coco['images'].append(dict(
            id=image_id, file_name=name, height=shape[0], width=shape[1]))
        found: list[tuple[int, Any, dict]] = []
        for label, polygon in objects:
            points = [polygon.flatten().tolist()]
            found.append((label, points, coco_mask.merge(
                coco_mask.frPyObjects(points, *shape))))
        if n == 0:
            mask = np.zeros(shape, np.uint8)
            mask[-16:, 8:40] = mask[-8:, 48:72] = 1
            # The class of an object: a detection in it counts neither way.
            found.append((objects[0][0], _runs(mask), coco_mask.encode(
                np.asfortranarray(mask))))
        for label, segmentation, code in found if n < number - 1 else ():
            coco['annotations'].append(dict(
                id=len(coco['annotations']) + 1,
                image_id=image_id,
                category_id=_COCO_IDS[label],
                segmentation=segmentation,
                area=float(coco_mask.area(code)),
                bbox=coco_mask.toBbox(code).tolist(),
                iscrowd=int(isinstance(segmentation, dict))))
    path = root / 'annotations' / f'instances_{split}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco))


def _runs(mask: np.ndarray) -> dict:
    """Mask [H, W] of 0 and 1 as COCO's files have crowds: lengths of runs of
    equal values, column by column, from a run of 0."""
    values = mask.flatten(order='F')
    ends = np.flatnonzero(np.diff(values)) + 1
    lengths = np.diff([0, *ends, values.size]).tolist()
    return dict(size=list(mask.shape),
                counts=[0, *lengths] if values[0] else lengths)


def _write_maps(root: Path, layout: Layout, split: int, number: int,
                rng: np.random.Generator) -> None:
    """Write a split of images with label maps: a class behind the polygons,
    and unlabelled pixels along the lower edge."""
    for n in range(1, number + 1):
        image, objects = _scene(rng, SHAPE, layout.classes)
        labels = np.full(SHAPE, rng.integers(layout.classes), np.uint8)
        for label, polygon in objects:
            cv2.fillPoly(labels, [polygon], label)
        labels += np.uint8(layout.first)
        labels[-8:] = layout.unlabelled
        where = dict(split=layout.splits[split], n=n)
        _write_image(root / layout.image.format(**where), image)
        _write_image(root / layout.label_map.format(**where), labels)


def _scene(rng: np.random.Generator, shape: tuple[int, ...],
           classes: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw three polygons side by side on noise.

    Args:
        rng: Source of all that is random.
        shape: Height H and width W in pixels.
        classes: Number of classes.

    Returns:
        Image [H, W, 3] uint8 (BGR), and class and corners [K, 2] int32 (x, y)
        of each polygon. The colour of a polygon depends on its class alone.
    """
    height, width = shape
    image = rng.integers(90, 166, (height, width, 3), np.uint8)
    objects = []
    for n in range(3):
        label = int(rng.integers(classes))
        corners = int(rng.choice([3, 4, 6, 12]))
        angles = np.arange(corners) * 2 * np.pi / corners + rng.uniform(0, 6)
        radii = rng.uniform(.3, .48) * np.array([width / 3, height / 2])
        centre = np.array([(n + .5) * width / 3, rng.uniform(.3, .7) * height])
        polygon = (centre + radii * np.stack(
            [np.cos(angles), np.sin(angles)], 1)).astype(np.int32)
        cv2.fillPoly(image, [polygon], colour(label))
        objects.append((label, polygon))
    return image, objects


def colour(label: int) -> list[int]:
    """Colour (BGR, 0 to 255) of the polygons of a class."""
    return np.random.default_rng(label).integers(0, 256, 3).tolist()


def _write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'cannot write {path}')


# ---- configs -------------------------------------------------------------


def fit(cfg: Config, root: str | Path, iterations: int = 2) -> None:
    """Make a config run in seconds on a tiny data set, on one CPU core.

    It trains for some iterations and is then evaluated once. The network is
    kept, except that batch normalisation is not synchronised (CPUs cannot).
    A detector looks at fewer boxes, and reports those of any score: none of
    an untrained one would pass, and CocoMetric then has no result at all.

    Args:
        cfg: Config of a detector or segmentor on one of the four data sets,
            changed in place.
        root: Folder that :func:`write` wrote; a relative path is looked for
            from where the config is run.
        iterations: Length of the training, 2 at most for a detector with
            batch size 1.

    Raises:
        ValueError: The training data are not COCO, Cityscapes, ADE20K or
            COCO-Stuff-164k.
    """
    kind_of(cfg)
    images.move(cfg, str(root))
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].update(num_workers=0, persistent_workers=False)
        for dataset in images.datasets(cfg[key].dataset):
            for step in _dicts(dataset.get('pipeline') or []):
                if isinstance(step.get('scale'), (tuple, list)):
                    step['scale'] = SHAPE[::-1]
                if 'crop_size' in step:
                    step['crop_size'] = CROP
    if 'size' in cfg.model.get('data_preprocessor', {}):
        cfg.model.data_preprocessor.size = CROP
    for part in _dicts(cfg.model):
        if part.get('type') == 'SyncBN':
            part['type'] = 'BN'
            # A pooled map has one value an image: two are the least.
            cfg.train_dataloader.batch_size = 2
    boxes = [cfg.model.get(key) for key in ('train_cfg', 'test_cfg')]
    for part in _dicts(boxes):
        for name in ('nms_pre', 'max_per_img', 'num'):
            if name in part:
                part[name] = BOXES
        if 'score_thr' in part:
            part['score_thr'] = 0.
    loop = cfg.train_cfg
    if 'max_iters' in loop:
        loop.update(max_iters=iterations, val_interval=iterations)
    else:
        loop.update(max_epochs=1, val_interval=1)
        cfg.train_dataloader.dataset.indices = \
            iterations * cfg.train_dataloader.batch_size
    cfg.default_hooks.logger.interval = 1


def _dicts(value: Any) -> Iterator[ConfigDict]:
    """All dicts in a value of a config."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _dicts(item)
