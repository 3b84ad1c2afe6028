"""Pictures of scenes: in each row an image, in the first column the ground
truth, in each other column the predictions of a model.

H, W: pixels of an image; N: objects in it; C: classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mmkd_rl.visualization.predictions import (
    ClassMap,
    Instances,
    Seen,
    match,
    share_right,
)

#: With more objects in a panel, scores and names would hide them.
MOST_LABELS = 25
#: Width of a panel in inches; the height follows the image.
_WIDTH = 3.1
#: Height of a label, as a share of the panel's.
_LABEL = .05
_UNLABELLED = 'no class'
_CROWD = 'crowd: counts neither way'
_MISSED, _WRONG = 'missed', 'wrong, or found twice'


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
                names: bool = False,
                notes: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """Draw images in rows, and their objects or class maps in columns.

    The first column is the truth, left of it the image alone if there are
    maps. Below the panels of the others stands how
    many objects, or which share of the pixels, are right in this image; wrong
    objects are dashed, and missed ones hatched. A class has the same colour
    in all panels. The legend has the classes that occur in the picture.

    Args:
        images: RGB images, [H, W, 3] uint8 each; sizes may differ.
        columns: Objects or class map of each image, by the column's title;
            the ground truth comes first.
        classes: Names of the C classes.
        colours: RGB of the classes, [C, 3] uint8.
        title: Title of the figure.
        names: Write the class at each box as well as the score.
        notes: More words below the panels of a column, one for each image, by
            the column's title.

    Raises:
        ValueError: A column has another number of images.
    """
    for name, column in columns.items():
        if len(column) != len(images):
            raise ValueError(f'column {name!r} has {len(column)} images '
                             f'instead of {len(images)}')
    legend = _legend(columns, classes, colours)
    ratios = [image.shape[0] / image.shape[1] for image in images]
    truth = next(iter(columns.values()))
    # Maps hide what they lie on.
    plain = any(isinstance(seen, ClassMap) for seen in truth)
    width = _WIDTH * (len(columns) + plain)
    lines = -(-len(legend) // _legend_columns(width))
    words = sum(max((column[row].count('\n') + 1
                     for column in (notes or {}).values() if column[row]),
                    default=0) for row in range(len(images)))
    figure = Figure(
        figsize=(width, _WIDTH * sum(ratios) + .5 + .3 * len(images) +
                 .2 * (lines + words)),
        layout='constrained')
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(images), len(columns) + plain, squeeze=False,
                           height_ratios=ratios)
    for row, image in enumerate(images):
        if plain:
            _show(axes[row, 0], image, 'image' if row == 0 else '')
        for axis, (name, column) in zip(axes[row, plain:], columns.items()):
            _draw(axis, image, column[row],
                  None if column is truth else truth[row],
                  classes, colours, names)
            if row == 0:
                axis.set_title(name, fontsize=11)
            if note := (notes or {}).get(name, [''] * len(images))[row]:
                axis.set_xlabel('\n'.join(filter(None, (
                    axis.get_xlabel(), note))), fontsize=9)
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
        seen: Objects or class map to draw.
        truth: The ground truth; ``None`` if ``seen`` is the ground truth.
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
                    image.shape[:2])
    _show(axis, shown)


def _show(axis: Axes, image: np.ndarray, title: str = '') -> None:
    axis.imshow(image, interpolation='nearest')
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(title, fontsize=11)


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
                names: bool, size: tuple[int, ...]) -> None:
    """Draw boxes with scores, and class names if ``names``, in an image of
    ``size`` (height, width) pixels."""
    height, width = size
    order: Sequence[int] = range(len(seen))
    if seen.scores is not None:
        # The most certain are drawn last, above the others.
        order = np.argsort(seen.scores, kind='stable').tolist()
    for n in order:
        left, top, right = seen.boxes[n, :3]
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
            # A label would be cut off at the image's right edge.
            late = left > (1 - 4 * _LABEL) * width
            axis.text(right if late else left,
                      top + 2 if inside else top - 2, '  '.join(words),
                      va='top' if inside else 'baseline',
                      ha='right' if late else 'left',
                      fontsize=8 if names else 6, color='white', clip_on=True,
                      bbox=dict(facecolor=colour / 255, edgecolor='none',
                                pad=1, alpha=.9))


def _box(box: np.ndarray, colour: np.ndarray, **style: Any) -> Rectangle:
    left, top, right, bottom = box.tolist()
    # The centre of the first pixel is at 0.
    return Rectangle((left - .5, top - .5), right - left, bottom - top,
                     fill=False, edgecolor=colour / 255, **style)
