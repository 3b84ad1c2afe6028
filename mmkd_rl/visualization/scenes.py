"""Pictures of scenes: in each row an image, in each column what is there or
what one model sees.

H, W: pixels of an image; N: objects in it; C: classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

#: With more objects in a panel, scores and names would hide them.
MOST_LABELS = 25
#: Width of a panel in inches; the height follows the image.
_WIDTH = 3.1
#: Height of a label, as a share of the panel's.
_LABEL = .05
_UNLABELLED = 'no class'
_CROWD = 'crowd: counts neither way'
_MISSED, _WRONG = 'missed', 'wrong, or found twice'
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
    common = _common_area(found.boxes, truth.boxes)
    area, true_area = _area(found.boxes)[:, None], _area(truth.boxes)[None]
    # In a crowd it counts how much of the box is inside.
    overlap = common / np.maximum(
        np.where(crowd, area, area + true_area - common), 1e-9)
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


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _common_area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Common area of boxes [N, 4] and [T, 4], as [N, T]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(2)


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


def class_colours(count: int,
                  palette: Sequence[Sequence[int]] | None = None
                  ) -> np.ndarray:
    """A colour for each class.

    Args:
        count: Number of classes C.
        palette: The data set's own colours (RGB, 0 to 255), used if there is
            one for each class.

    Returns:
        RGB, [C, 3] uint8.
    """
    if palette is not None and len(palette) == count:
        return np.array(palette, np.uint8).reshape(count, 3)
    if count <= 20:
        table = matplotlib.colormaps['tab10' if count <= 10 else 'tab20']
        colours = [table(n) for n in range(count)]
    else:
        # Neighbours differ in brightness as well as in hue.
        colours = [matplotlib.colormaps['hsv'](n / count)
                   if n % 2 else matplotlib.colormaps['turbo'](n / count)
                   for n in range(count)]
    return np.round(255 * np.array(colours)[:, :3]).astype(np.uint8)


def draw_scenes(images: Sequence[np.ndarray],
                columns: Mapping[str, Sequence[Seen]],
                classes: Sequence[str],
                colours: np.ndarray,
                title: str = '',
                names: bool = False) -> Figure:
    """Draw images in rows and what is seen in them in columns.

    The first column is the truth. Below the panels of the others stands how
    many objects, or which share of the pixels, are right in this image; wrong
    objects are dashed, and missed ones hatched. A class has the same colour
    in all panels. The legend has the classes that occur in the picture.

    Args:
        images: RGB images, [H, W, 3] uint8 each; sizes may differ.
        columns: What is seen in each image, by the column's title; the truth
            comes first.
        classes: Names of the C classes.
        colours: RGB of the classes, [C, 3] uint8.
        title: Title of the figure.
        names: Write the class at each box as well as the score.

    Raises:
        ValueError: A column has another number of images.
    """
    for name, column in columns.items():
        if len(column) != len(images):
            raise ValueError(f'column {name!r} has {len(column)} images '
                             f'instead of {len(images)}')
    legend = _legend(columns, classes, colours)
    ratios = [image.shape[0] / image.shape[1] for image in images]
    width = _WIDTH * len(columns)
    lines = -(-len(legend) // _legend_columns(width))
    figure = Figure(
        figsize=(width, _WIDTH * sum(ratios) + .75 + .2 * lines),
        layout='constrained')
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(images), len(columns), squeeze=False,
                           height_ratios=ratios)
    truth = next(iter(columns.values()))
    for row, image in enumerate(images):
        for axis, (name, column) in zip(axes[row], columns.items()):
            _draw(axis, image, column[row],
                  None if column is truth else truth[row],
                  classes, colours, names)
            if row == 0:
                axis.set_title(name, fontsize=11)
    if legend:
        figure.legend(
            handles=legend,
            loc='outside lower center',
            ncols=-(-len(legend) // lines),  # rows of equal length
            fontsize=9,
            frameon=False)
    return figure


def _legend_columns(width: float) -> int:
    return max(1, int(width / 1.5))


def _legend(columns: Mapping[str, Sequence[Seen]], classes: Sequence[str],
            colours: np.ndarray) -> list[Patch]:
    """An entry for each class that occurs, and for all other marks."""
    seen = [s for column in columns.values() for s in column]
    present = {int(c) for s in seen for c in np.unique(s.labels)}
    known = sorted(present & set(range(len(classes))))
    entries = [Patch(color=colours[c] / 255, label=classes[c]) for c in known]
    if len(known) < len(present):
        entries.append(Patch(color='0.2', label=_UNLABELLED))
    objects = [s for s in seen if isinstance(s, Instances)]
    if objects and len(columns) > 1:
        entries += [
            Patch(facecolor='none', edgecolor='0.3', linestyle='--',
                  label=_WRONG),
            Patch(facecolor='none', edgecolor='0.3', hatch='/////',
                  linewidth=0, label=_MISSED)]
    if any(s.is_crowd(n) for s in objects for n in range(len(s))):
        entries.append(Patch(facecolor='none', edgecolor='0.3',
                             linestyle=':', label=_CROWD))
    return entries


def _draw(axis: Axes, image: np.ndarray, seen: Seen, truth: Seen | None,
          classes: Sequence[str], colours: np.ndarray, names: bool) -> None:
    """Draw a panel.

    Args:
        axis: Where to draw.
        image: RGB, [H, W, 3] uint8.
        seen: What is drawn.
        truth: What is there; ``None``: ``seen`` is it.
        classes: Names of the classes.
        colours: Colours of the classes, [C, 3] uint8.
        names: Write the class at each box.
    """
    if isinstance(seen, ClassMap):
        shown = _blend_map(image, seen.labels, colours)
        if isinstance(truth, ClassMap):
            share = share_right(seen, truth, len(classes))
            axis.set_xlabel(f'{share:.1%} of the pixels right', fontsize=9)
    else:
        shown = _blend_masks(image, seen, colours)
        wrong = np.zeros(len(seen), bool)
        if isinstance(truth, Instances):
            matched = match(seen, truth)
            wrong = matched.wrong
            for n in np.flatnonzero(matched.missed):
                axis.add_patch(
                    _box(truth.boxes[n], colours[truth.labels[n]],
                         linewidth=0, hatch='/////', alpha=.7))
            true = len(truth) - sum(map(truth.is_crowd, range(len(truth))))
            axis.set_xlabel(f'{matched.right.sum()} of {true} found, '
                            f'{wrong.sum()} wrong', fontsize=9)
        _draw_boxes(axis, seen, wrong, classes, colours, names,
                    len(image))
    axis.imshow(shown, interpolation='nearest')
    axis.set_xticks([])
    axis.set_yticks([])


def _blend_map(image: np.ndarray, labels: np.ndarray,
               colours: np.ndarray) -> np.ndarray:
    """The classes' colours over a grey image [H, W, 3]; pixels without a
    class are dark."""
    grey = image.mean(2, keepdims=True)
    known = (labels >= 0) & (labels < len(colours))
    colour = colours[np.where(known, labels, 0)]
    return np.where(known[..., None], .3 * grey + .7 * colour,
                    .25 * grey).astype(np.uint8)


def _blend_masks(image: np.ndarray, seen: Instances,
                 colours: np.ndarray) -> np.ndarray:
    """The masks in colour over a darkened image [H, W, 3]."""
    if seen.masks is None:
        return image
    shown = (image * .7).astype(np.uint8)
    for n, mask in enumerate(seen.masks):
        if not seen.is_crowd(n):
            shown[mask] = .25 * image[mask] + .75 * colours[seen.labels[n]]
    return shown


def _draw_boxes(axis: Axes, seen: Instances, wrong: np.ndarray,
                classes: Sequence[str], colours: np.ndarray,
                names: bool, height: int) -> None:
    order: Sequence[int] = range(len(seen))
    if seen.scores is not None:
        # The most certain are drawn last, above the others.
        order = np.argsort(seen.scores, kind='stable').tolist()
    for n in order:
        left, top = seen.boxes[n, :2]
        colour = colours[seen.labels[n]]
        style = ':' if seen.is_crowd(n) else '--' if wrong[n] else '-'
        axis.add_patch(
            _box(seen.boxes[n], colour, linewidth=1.3, linestyle=style))
        words = [classes[seen.labels[n]]] if names else []
        if seen.scores is not None:
            words.append(f'{seen.scores[n]:.0%}')
        if words and len(seen) <= MOST_LABELS:
            # Above the box, or inside at the image's upper edge.
            inside = top < _LABEL * height
            axis.text(left, top + 2 if inside else top - 2, '  '.join(words),
                      va='top' if inside else 'baseline',
                      fontsize=8 if names else 6, color='white', clip_on=True,
                      bbox=dict(facecolor=colour / 255, edgecolor='none',
                                pad=1, alpha=.9))


def _box(box: np.ndarray, colour: np.ndarray, **style: Any) -> Rectangle:
    left, top, right, bottom = box.tolist()
    # The centre of the first pixel is at 0.
    return Rectangle((left - .5, top - .5), right - left, bottom - top,
                     fill=False, edgecolor=colour / 255, **style)
