"""Random objects in the format of a detector's data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config

#: Objects of an image.
_COUNT = 3
#: Options for the number of classes of objects, by their parts of a model.
_CLASSES = ('num_classes', 'num_things_classes')
#: Parts of a model that look for objects without classes, or for other things.
_WITHOUT = ('backbone', 'neck', 'rpn_head', 'semantic_head', 'seg_head',
            'mask_iou_head')


def num_classes(cfg: Config) -> int:
    """Number of classes of a detector's objects: the smallest that a head
    has; 1 for region proposals."""
    return min(_numbers(cfg.model), default=1)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key in _CLASSES and isinstance(part, int):
                yield part
            elif key not in _WITHOUT and not str(key).startswith('loss'):
                yield from _numbers(part)


def objects(cfg: Config, size: tuple[int, int], steps: list[dict],
            generator: np.random.Generator) -> dict:
    """Boxes, classes, masks and a label map, as the last step of a pipeline
    gets them.

    Args:
        cfg: Config of a detector.
        size: (H, W) of the image.
        steps: Steps of its training pipelines.
        generator: Of random numbers.
    """
    height, width = size
    corners = np.sort(generator.random((_COUNT, 2, 2)), axis=1)
    # At least an eighth of a side, so that no box is empty.
    corners[:, 1] = np.minimum(np.maximum(
        corners[:, 1], corners[:, 0] + .125), 1)
    corners[:, 0] = np.minimum(corners[:, 0], corners[:, 1] - .125)
    boxes = (corners * [width, height]).reshape(-1, 4).astype(np.float32)
    labels = generator.integers(num_classes(cfg), size=_COUNT)
    masks = np.zeros((_COUNT, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
        mask[y1:y2 + 1, x1:x2 + 1] = 1
    found = dict(
        gt_bboxes=HorizontalBoxes(boxes), gt_bboxes_labels=labels,
        gt_ignore_flags=np.zeros(_COUNT, dtype=bool))
    if _loads(steps, 'with_mask'):
        found['gt_masks'] = BitmapMasks(masks, height, width)
    if _loads(steps, 'with_seg'):
        # Things at their places, and stuff, the class after them, elsewhere.
        label_map = np.full(size, num_classes(cfg), np.uint8)
        for mask, label in zip(masks, labels):
            label_map[mask > 0] = label
        found['gt_seg_map'] = label_map
    return found


def _loads(steps: list[dict], what: str) -> bool:
    """Whether a pipeline loads masks or label maps."""
    return any(step.get(what, 'Panoptic' in str(step.get('type')))
               for step in steps
               if str(step.get('type')).rpartition('.')[2].startswith('Load')
               and 'Annotations' in str(step.get('type')))


#: Numbers of proposals and of samples of them, and the largest of each here.
_COUNTS = dict(nms_pre=200, max_per_img=50, num=32)


def with_few_proposals(value: Any, limited: bool = False) -> Any:
    """Limit the numbers of proposals and of samples in a model's ``train_cfg``
    or ``test_cfg``: heads of two-stage detectors run once for each, and that
    is most of their time.

    Args:
        value: The config, or a part of it.
        limited: Whether the part sets such numbers.
    """
    if isinstance(value, dict):
        return type(value)({
            k: min(v, _COUNTS[k])
            if limited and k in _COUNTS and isinstance(v, int) and v > 0
            else with_few_proposals(v, k in ('rpn', 'rpn_proposal', 'sampler'))
            for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(with_few_proposals(v) for v in value)
    return value
