"""Pictures of the teachers' weights: over training, and image by image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmkd_rl.visualization.common import Record, color


@dataclass
class WeightRecord(Record):
    """Mean weights over training.

    Attributes:
        teachers: Names of the teachers.
        iterations: Iterations at which the means end.
        logit: Mean logit weights, [len(iterations)][M].
        feature: Mean feature weights, [len(iterations)][M].
        entropy: Mean entropies in nats of logit and feature weights scaled to
            sum to one, [len(iterations)][2]; ln M: equal weights; 0: one
            teacher has all.
        kinds: Which of ``'logits'`` and ``'features'`` are distilled; weights
            of the other one train nothing.
    """
    what: ClassVar[str] = 'weights'
    teachers: list[str]
    iterations: list[int] = field(default_factory=list)
    logit: list[list[float]] = field(default_factory=list)
    feature: list[list[float]] = field(default_factory=list)
    entropy: list[list[float]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=lambda: ['logits', 'features'])


def plot_weights(record: WeightRecord,
                 mark: Mapping[str, str] | None = None,
                 title: str = 'Trust in each teacher over training') -> Figure:
    """Draw the mean weights of each teacher over training, for logits and
    features, of those that are distilled.

    Args:
        record: The record.
        mark: Notes for the legend, by teacher (``{'vgg': '60 % wrong
            labels'}``); those teachers are drawn dashed.
        title: Title of the figure.
    """
    mark = mark or {}
    figure = Figure(figsize=(5 * len(record.kinds), 4.6), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(1, len(record.kinds), sharey=True, squeeze=False)[0]
    total = _total(record)
    means = dict(logits=record.logit, features=record.feature)
    for axis, name in zip(axes, record.kinds):
        rows = means[name]
        for m, teacher in enumerate(record.teachers):
            axis.plot(
                record.iterations, [row[m] for row in rows],
                '--' if teacher in mark else '-',
                # A line needs more than one point.
                marker='o' if len(record.iterations) < 20 else None,
                markersize=4,
                linewidth=2.4 if teacher in mark else 1.8,
                color=color(m),
                label=f'{teacher} ({mark[teacher]})'
                if teacher in mark else teacher)
        axis.axhline(
            total / len(record.teachers),
            color='0.6',
            linewidth=1,
            linestyle=':',
            label='equal weights')
        axis.set_title(f'distillation of {name}')
        axis.set_xlabel('student iterations')
        axis.grid(alpha=0.25)
    axes[0].set_ylabel('mean weight over the images')
    # Outside of the axes, so that it hides no curve.
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc='outside lower center',
        ncols=len(record.teachers) + 1)
    return figure


def draw_samples(images: Sequence[np.ndarray],
                 weights: np.ndarray,
                 teachers: Sequence[str],
                 labels: Sequence[str] | None = None,
                 mark: Mapping[str, str] | None = None,
                 title: str = 'Logit weights of each teacher, image by image'
                 ) -> Figure:
    """Draw images, each above the teachers' weights for it.

    Args:
        images: RGB images, [H, W, 3] uint8 each.
        weights: Weights, [len(images), M].
        teachers: Names of the M teachers.
        labels: Texts above the images.
        mark: See :func:`plot_weights`.
        title: Title of the figure.
    """
    mark = mark or {}
    columns = min(6, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(
        figsize=(1.75 * columns, 2.7 * rows + 0.9), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(
        2 * rows, columns, squeeze=False, height_ratios=[1.35, 1] * rows)
    top = max(1e-6, float(weights.max()))
    bars = None
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        upper, lower = axes[2 * row][column], axes[2 * row + 1][column]
        if i >= len(images):
            upper.axis('off')
            lower.axis('off')
            continue
        upper.imshow(images[i], interpolation='nearest')
        upper.set_xticks([])
        upper.set_yticks([])
        if labels is not None:
            upper.set_title(labels[i], fontsize=9)
        bars = lower.bar(
            range(len(teachers)),
            weights[i],
            color=[color(m) for m in range(len(teachers))],
            hatch=['///' if t in mark else '' for t in teachers])
        lower.bar_label(bars, fmt='%.2f', fontsize=7)
        lower.set_ylim(0, 1.2 * top)
        lower.set_xticks([])
        lower.set_yticks([])
        for side in ('top', 'right', 'left'):
            lower.spines[side].set_visible(False)
    if bars is not None:
        figure.legend(
            list(bars), [
                f'{t} ({mark[t]})' if t in mark else t for t in teachers
            ],
            loc='outside lower center',
            ncols=len(teachers),
            fontsize=9)
    return figure


def _total(record: WeightRecord) -> float:
    return sum(record.logit[-1]) if record.logit else 1.
