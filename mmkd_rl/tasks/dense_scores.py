"""Class scores that detectors give for a grid of anchors or points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

#: Base classes of heads whose first output are score maps, one a level. By
#: name: MMDetection may not be installed.
_DENSE = {'AnchorHead', 'AnchorFreeHead', 'YOLOXHead'}
#: Heads among them whose first output is something else, and what.
_OTHERS = {
    'RPNHead': 'scores objects without classes',
    'GuidedAnchorHead': 'predicts its anchors',
    'TOODHead': 'gives probabilities, not scores',
    'YOLOXHead': 'trains the scores of classes at objects alone',
    'AutoAssignHead': 'trains the scores of classes at objects alone',
}


@dataclass(frozen=True)
class DenseScores:
    """Meaning of the channels of a dense head's score maps.

    Attributes:
        classes: Number of classes C.
        strides: Stride of each level, (x, y) in pixels.
        anchors: Anchors at each location A, the slowest axis of the channels.
        boxes: Corners of the anchors at the first location of each level, in
            pixels; empty for one anchor or point at each location, whose size
            is only a start.
        bins: Distances N of which each edge of a box has a distribution; 0:
            the head has no distributions.
    """
    classes: int
    strides: tuple[tuple[int, int], ...]
    anchors: int
    boxes: tuple = ()
    bins: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """In words, for messages."""
        steps = ', '.join(str(x) for x, _ in self.strides)
        what = f'{self.anchors} anchors' if self.anchors > 1 else \
            'one anchor or point'
        return (f'{self.classes} classes, {what} at each location, strides '
                f'{steps}')


def scores_of(head: Any) -> DenseScores | str:
    """Meaning of the score maps of a detector's dense head.

    Args:
        head: The detector's ``bbox_head``; ``None``: it has none.

    Returns:
        A text that says why, if the head has no maps of scores for a sigmoid
        for each class.
    """
    if head is None:
        return 'it has no dense head'
    name = type(head).__name__
    bases = {base.__name__ for base in type(head).__mro__}
    priors: Any = getattr(head, 'prior_generator', None)
    if not bases & _DENSE or priors is None:
        return f'{name} gives no scores of classes for a grid of locations'
    if kinds := bases & set(_OTHERS):
        return f'{name} {_OTHERS[kinds.pop()]}'
    if not _uses_sigmoid(head):
        return f'{name} scores classes and background with a softmax'
    counts = set(priors.num_base_priors)
    if len(counts) > 1:
        return f'{name} has levels with different numbers of anchors'
    count, = counts
    return DenseScores(
        head.num_classes, tuple((int(x), int(y)) for x, y in priors.strides),
        count, () if count == 1 else tuple(
            tuple(map(tuple, level.tolist()))
            for level in priors.base_anchors),
        head.reg_max + 1 if hasattr(head, 'integral') else 0)


def _uses_sigmoid(head: nn.Module) -> bool:
    loss = getattr(head, 'loss_cls', None)
    return bool(getattr(head, 'use_sigmoid_cls',
                        getattr(loss, 'use_sigmoid', False)))
