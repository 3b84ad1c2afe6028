"""Picture of Knowledge Flow's weights, layer by layer.

Student layer j mixes its candidates l in L_j with weights p_w^j(l) that sum to
one (Sec. 3.2). Drawn are the means over the layers of Fig. 1(c) and 7,

    student:    1/L0 sum_j p_w^j(l_0^j)
    teacher m:  1/L0 sum_j sum_{i: l_m^i in L_j} p_w^j(l_m^i),

which sum to one, and p_w^j of every link. The paper does not say whether the
weights of several links of a teacher in one layer are summed; here they are,
since the sum is the teacher's weight in the mixture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmkd_rl.visualization.common import Record, color

#: The record's name in a work directory.
FILE_NAME = 'knowledge_flow.json'
TITLE = "Knowledge flow: whose features the student's layers take"
#: The student's name among candidates and means.
STUDENT = 'student'


@dataclass
class FlowRecord(Record):
    """Normalised weights p_w over training.

    Attributes:
        layers: Names of the student's J layers.
        candidates: Candidates of each layer: ``'student'``,
            ``'TEACHER:LAYER'``, ...
        teachers: Names of the teachers.
        iterations: Numbers of completed iterations of the N points.
        weights: Weights [N][J][len(candidates[j])]; each layer's sum to one.
        retired: Completed iterations when a teacher was retired, by teacher;
            active teachers are absent.

    Raises:
        ValueError: The attributes do not fit together.
    """
    what: ClassVar[str] = 'a knowledge flow'
    layers: list[str]
    candidates: list[list[str]]
    teachers: list[str]
    iterations: list[int] = field(default_factory=list)
    weights: list[list[list[float]]] = field(default_factory=list)
    retired: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if STUDENT in self.teachers:
            raise ValueError(f'no teacher may be called {STUDENT!r}')
        if not self.layers or len(self.layers) != len(self.candidates):
            raise ValueError(f'{len(self.layers)} layers, but candidates of '
                             f'{len(self.candidates)}')
        for names in self.candidates:
            if names[:1] != [STUDENT]:
                raise ValueError(f'candidates must begin with {STUDENT!r}, '
                                 f'got {names}')
            for name in names[1:]:
                self.teacher_of(name)
        if len(self.iterations) != len(self.weights):
            raise ValueError(f'{len(self.iterations)} iterations, but weights '
                             f'at {len(self.weights)}')
        sizes = [len(names) for names in self.candidates]
        for iteration, rows in zip(self.iterations, self.weights):
            if [len(row) for row in rows] != sizes:
                raise ValueError(f'weights at iteration {iteration} do not '
                                 'fit the candidates')
        if unknown := set(self.retired) - set(self.teachers):
            raise ValueError(f'retired has {sorted(unknown)}; the teachers '
                             f'are {self.teachers}')

    def teacher_of(self, candidate: str) -> str:
        """Name of a candidate's teacher.

        Raises:
            ValueError: The candidate belongs to none of the teachers.
        """
        # The longest: one name may be the beginning of another ('a', 'a:b').
        owners = [t for t in self.teachers if candidate.startswith(f'{t}:')]
        if not owners:
            raise ValueError(f'candidate {candidate!r} must be TEACHER:LAYER '
                             f'of the teachers {self.teachers}')
        return max(owners, key=len)

    def curve(self, layer: int, candidate: int) -> list[float]:
        """Weight of one candidate over the iterations, [N]."""
        return [rows[layer][candidate] for rows in self.weights]

    def mean(self) -> dict[str, list[float]]:
        """Means over the layers of the student and each teacher, [N]; at each
        point they sum to one."""
        names = [STUDENT, *self.teachers]
        parts = {name: [0.] * len(self.iterations) for name in names}
        for j, candidates in enumerate(self.candidates):
            for c, candidate in enumerate(candidates):
                part = parts[self.teacher_of(candidate) if c else STUDENT]
                for n, weight in enumerate(self.curve(j, c)):
                    part[n] += weight / len(self.layers)
        return parts


def plot_flow(record: FlowRecord,
              mark: Mapping[str, str] | None = None,
              title: str = TITLE) -> Figure:
    """Draw the means over the layers in a large panel, and each layer's links
    in small ones.

    A teacher has one colour; its links in a layer are shades of it. Vertical
    lines show when teachers were retired.

    Args:
        record: The record.
        mark: Notes for the legend, by teacher (``{'svhn': 'house
            numbers'}``); those teachers are drawn dashed.
        title: Title of the figure.
    """
    mark = mark or {}
    count = len(record.layers)
    # A row must be as high as its legend, 0.15 inches for each line.
    high = max(2., 0.6 + .15 * max(len(c) for c in record.candidates))
    columns = 1 if count <= 3 else 2 if count == 4 else 3
    rows = math.ceil(count / columns)
    if columns == 1:
        figure = _figure((12.5, max(4.6, .9 + rows * high)), title)
        large, small = figure.subfigures(
            1, 2, squeeze=False, width_ratios=[1.2, 1]).flat
        where = 'outside lower center'
    else:
        longest = max(len(_short(c)) for row in record.candidates for c in row)
        figure = _figure(
            (columns * (2.9 + .08 * longest), 4.4 + rows * high), title)
        large, small = figure.subfigures(
            2, 1, squeeze=False, height_ratios=[3.9, rows * high]).flat
        where = 'outside right upper'
    axis = large.subplots()
    _draw_means(axis, record, mark)
    large.legend(
        *axis.get_legend_handles_labels(),
        loc=where,
        fontsize=9,
        frameon=False,
        ncols=min(2, 1 + len(record.teachers)) if columns == 1 else 1)
    axes = small.subplots(
        rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for j, axis in enumerate(axes):
        if j >= count:
            axis.axis('off')
            continue
        _draw_layer(axis, record, j, mark)
        if j + columns >= count:
            axis.tick_params(labelbottom=True)
    small.supxlabel('student iterations', fontsize=9)
    return figure


def _figure(size: tuple[float, float], title: str) -> Figure:
    figure = Figure(figsize=size, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def _draw_means(axis: Axes, record: FlowRecord,
                mark: Mapping[str, str]) -> None:
    means = record.mean()
    point = _point(record)
    axis.plot(
        record.iterations,
        means[STUDENT],
        marker=point,
        markersize=5,
        color='black',
        linewidth=3,
        label=STUDENT)
    for m, teacher in enumerate(record.teachers):
        notes = [mark[teacher]] if teacher in mark else []
        if teacher in record.retired:
            notes.append(f'not run after {record.retired[teacher]:,}')
        axis.plot(
            record.iterations,
            means[teacher],
            marker=point,
            markersize=4,
            color=color(m),
            linewidth=2,
            linestyle='--' if teacher in mark else '-',
            label=f'{_short(teacher)} ({"; ".join(notes)})'
            if notes else _short(teacher))
    _draw_retired(axis, record)
    _frame(axis)
    axis.set_title('mean over the layers', fontsize=10)
    axis.set_ylabel('normalised weight $p_w$')
    axis.set_xlabel('student iterations')


def _draw_layer(axis: Axes, record: FlowRecord, layer: int,
                mark: Mapping[str, str]) -> None:
    candidates = record.candidates[layer]
    owners = [record.teacher_of(name) for name in candidates[1:]]
    point = _point(record)
    axis.plot(
        record.iterations,
        record.curve(layer, 0),
        marker=point,
        markersize=3,
        color='black',
        linewidth=2)
    for c, owner in enumerate(owners):
        axis.plot(
            record.iterations,
            record.curve(layer, c + 1),
            marker=point,
            markersize=3,
            linewidth=1.5,
            linestyle='--' if owner in mark else '-',
            color=_shade(
                color(record.teachers.index(owner)), owners[:c].count(owner),
                owners.count(owner)),
            label=_short(candidates[c + 1]))
    _draw_retired(axis, record, owners)
    _frame(axis)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.tick_params(labelsize=8)
    axis.set_title(_short(record.layers[layer], 40), fontsize=9)
    if owners:
        axis.legend(
            loc='upper left',
            bbox_to_anchor=(1, 1.06),
            fontsize=7.5,
            handlelength=1.2,
            frameon=False)


def _draw_retired(axis: Axes, record: FlowRecord,
                  teachers: Sequence[str] | None = None) -> None:
    """Draw a vertical line where teachers were retired."""
    for iteration in sorted(set(record.retired.values())):
        gone = [t for t, i in record.retired.items() if i == iteration
                and (teachers is None or t in teachers)]
        if gone:
            axis.axvline(
                iteration,
                color=color(record.teachers.index(gone[0]))
                if len(gone) == 1 else '0.4',
                linewidth=1,
                linestyle=':')


def _frame(axis: Axes) -> None:
    axis.set_ylim(-.03, 1.03)
    axis.grid(alpha=.25)


def _point(record: FlowRecord) -> str:
    """Marker for short records: a line needs more than one point."""
    return 'o' if len(record.iterations) < 20 else ''


def _shade(name: str, index: int, count: int) -> tuple[float, ...]:
    """A shade of a colour, lighter for higher indices."""
    white = .55 * index / max(1, count - 1)
    return tuple(c + white * (1 - c) for c in to_rgb(name))


def _short(name: str, size: int = 28) -> str:
    """Shorten the middle of a name that is too long for a legend."""
    if len(name) <= size:
        return name
    head = size // 2 - 1
    return f'{name[:head]}…{name[head + 1 - size:]}'
