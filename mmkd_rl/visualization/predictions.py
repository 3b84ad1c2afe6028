"""Objects or class maps of images, and which of them are right.

H, W: pixels of an image; N: objects in it; C: classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Overlap from which a box has found an object, as in AP50.
IOU = .5


@dataclass(frozen=True)
class Instances:
    """Objects of one image.

    Attributes:
        labels: Class of each object, [N] of 0..C-1.
        boxes: Left, top, right and lower edge in pixels, [N, 4].
        scores: Confidence, [N] of 0..1; ``None``: true objects.
        masks: Pixels of each object, [N, H, W] bool; ``None``: only boxes.
        crowds: Regions of many objects or hard ones, which evaluations leave
            out, [N] bool; ``None``: there are none.

    Raises:
        ValueError: The attributes are of different lengths.
    """
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None
    crowds: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.boxes.shape != (count, 4):
            raise ValueError(f'{count} labels need boxes [{count}, 4], got '
                             f'{list(self.boxes.shape)}')
        for name in ('scores', 'masks', 'crowds'):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise ValueError(f'{count} labels, but {len(value)} {name}')

    def __len__(self) -> int:
        return len(self.labels)

    def is_crowd(self, n: int) -> bool:
        """Whether object ``n`` is a crowd."""
        return self.crowds is not None and bool(self.crowds[n])


@dataclass(frozen=True)
class ClassMap:
    """Classes of an image's pixels.

    Attributes:
        labels: Class of each pixel, [H, W]; what is not in 0..C-1 has none.
    """
    labels: np.ndarray


Seen = Instances | ClassMap


@dataclass(frozen=True)
class Match:
    """Which of N found objects are which of T true ones.

    Attributes:
        right: Found objects that are true ones, [N] bool.
        ignored: Found objects in crowds, which count neither way, [N] bool.
        missed: True objects that were not found, [T] bool.
    """
    right: np.ndarray
    ignored: np.ndarray
    missed: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Found objects that are not there, [N] bool."""
        return ~(self.right | self.ignored)


def match(found: Instances, truth: Instances) -> Match:
    """Assign found objects to true ones of the same class, as COCO's AP50
    does: the most certain first, each to the object that it overlaps most and
    that is not yet taken, by boxes.

    Args:
        found: N objects with scores.
        truth: T objects.
    """
    assert found.scores is not None
    crowd = np.array([truth.is_crowd(t) for t in range(len(truth))], bool)
    overlap = np.zeros((len(found), len(truth)))
    if overlap.size:
        # Imported here, because only MMDetection installs it.
        from pycocotools import mask as coco_mask
        # For a crowd it is the share of the found box that is inside.
        overlap = coco_mask.iou(_left_top_size(found.boxes),
                                _left_top_size(truth.boxes), crowd.tolist())
    overlap[found.labels[:, None] != truth.labels[None]] = 0
    right, ignored = np.zeros((2, len(found)), bool)
    missed = ~crowd
    for n in np.argsort(-found.scores, kind='stable'):
        free = np.where(missed, overlap[n], 0)
        if free.size and free.max() >= IOU:
            missed[free.argmax()] = False
            right[n] = True
        else:
            ignored[n] = (overlap[n][crowd] >= IOU).any()
    return Match(right, ignored, missed)


def _left_top_size(boxes: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] with width and height in place of right and lower edge."""
    return np.concatenate(
        [boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(float)


def share_right(seen: ClassMap, truth: ClassMap, classes: int) -> float:
    """Share of the pixels with a true class whose class is right; 1. if there
    are none.

    Args:
        seen: Predicted classes.
        truth: True classes.
        classes: Number of classes C.
    """
    known = (truth.labels >= 0) & (truth.labels < classes)
    if not known.any():
        return 1.
    return float((seen.labels == truth.labels)[known].mean())
