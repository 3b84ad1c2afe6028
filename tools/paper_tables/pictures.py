"""Plots of a table's results: accuracy, teachers' weights, p_w."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmkd_rl.visualization.flow import STUDENT, FlowRecord
from mmkd_rl.visualization.weights import WeightRecord
from paper_tables.cells import TOP1
from paper_tables.text import plus_minus

if TYPE_CHECKING:
    from paper_tables.report import Report, Row

# Largest difference of shares that are drawn as one line.
_SAME = .01
_COLOURS = ('#444444', '#8c564b', '#1f77b4', '#17becf', '#2ca02c', '#bcbd22',
            '#ff7f0e', '#9467bd', '#d62728', '#e377c2', '#7f7f7f', '#aec7e8',
            '#98df8a', '#c5b0d5', '#ffbb78', '#000080')


#: Note for a teacher that was trained on permuted classes.
SPOILED = 'labels permuted'


def draw(report: Report, folder: Path, stem: str) -> list[Path]:
    """Write the pictures of a report, for each student.

    Args:
        report: Report with its rows.
        folder: Folder to write to.
        stem: First part of the file names.

    Returns:
        The files.
    """
    out = []
    students = list(dict.fromkeys(row.student for row in report.rows))
    # By the position in the table, so that a method has the same colour in
    # all pictures.
    colours = {name: _COLOURS[i % len(_COLOURS)]
               for i, name in enumerate(report.table.methods)}
    mark = {report.spoil: SPOILED} if report.spoil else {}
    for student in students:
        rows = [row for row in report.rows
                if row.student == student and row.results]
        title = (f'{report.table.source}, {student}, scale '
                 f'{report.scale.name}') + (
                     f', {report.spoil} spoiled' if report.spoil else '')
        figures = {}
        if rows:
            figures['accuracy'] = plot_accuracy(
                rows, title, colours, report.table.metric.title)
        if weights := _found(rows, 'weights', WeightRecord):
            off = {row.cell.title: row.off for row in rows}
            figures['weights'] = plot_weights(weights, title, mark, off)
        if flows := _found(rows, 'flow', FlowRecord):
            figures['flow'] = plot_flows(flows, title)
        suffix = f'_{student}' if len(students) > 1 else ''
        out += [_save(figure, folder / f'{stem}_{name}{suffix}.png')
                for name, figure in figures.items()]
    return out


def _found(rows: Iterable[Row], key: str, kind: Any) -> dict[str, list]:
    """Load the records of finished runs.

    Args:
        rows: Rows of the report.
        key: Attribute of a result with the file's name.
        kind: Class of the record.

    Returns:
        Records by the method's title, one a seed; those whose teachers differ
        from the first seed's are left out.
    """
    out = {}
    for row in rows:
        found = []
        for seed, result in sorted(row.results.items()):
            name = getattr(result, key)
            with contextlib.suppress(OSError, ValueError):
                found += [kind.load(str(row.folder / f'seed{seed}' / name))
                          ] if name else []
        same = [r for r in found
                if r.iterations and r.teachers == found[0].teachers]
        if same:
            out[row.cell.title] = same
    return out


def plot_accuracy(rows: Sequence[Row], title: str,
                  colours: Mapping[str, str],
                  metric: str = TOP1.title) -> Figure:
    """Plot the mean accuracy of each method over epochs or iterations; seeds
    are faint lines.

    Args:
        rows: Rows with at least one result each.
        title: Title of the figure.
        colours: Colours by the method's name.
        metric: Name of what is plotted.
    """
    figure = Figure(figsize=(9, 5), layout='constrained')
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for row in rows:
        colour = colours[row.cell.method]
        curves = [{int(epoch): top1 for epoch, top1 in r.accuracy}
                  for r in row.results.values()]
        # Only epochs that all seeds have; otherwise the mean would jump.
        epochs = sorted(set(curves[0]).intersection(*curves))
        means = [statistics.fmean(c[e] for c in curves) for e in epochs]
        for curve in curves if len(curves) > 1 else ():
            axis.plot(list(curve), list(curve.values()), color=colour,
                      alpha=.22, linewidth=.8)
        spread = plus_minus(means[-1] if means else None)
        axis.plot(epochs, means, color=colour, linewidth=1.9,
                  marker='o' if len(epochs) < 20 else None, markersize=3.5,
                  label=f'{row.cell.title}  {spread}')
    axis.set_xlabel('epoch' if rows[0].by_epoch else 'iteration')
    axis.set_ylabel(f'{metric}, %')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(title, fontsize=11)
    axis.grid(alpha=.25)
    figure.legend(loc='outside right upper', fontsize=9,
                  title='mean over seeds, last')
    return figure


def plot_weights(records: Mapping[str, Sequence[WeightRecord]], title: str,
                 mark: Mapping[str, str] | None = None,
                 off: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """Plot the teachers' mean weights over the training, a row a method.

    Weights are shown as shares of their sum. Lines of teachers with the same
    shares are dashed in alternation, so that all of them are visible.

    Args:
        records: Records by the method's title, one a seed.
        title: Title of the figure.
        mark: Notes by teacher for the legend; these teachers' lines are
            dashed.
        off: Kinds of distillation (``'logit'``, ``'feature'``) that a method
            turns off, by the method's title.
    """
    mark, off = mark or {}, off or {}
    figure = Figure(
        figsize=(9.5, 1.0 + 1.55 * len(records)), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(records), 2, squeeze=False, sharex=True,
                           sharey=True)
    names = list(dict.fromkeys(
        t for group in records.values() for r in group for t in r.teachers))
    for line, (method, group) in zip(axes, records.items(), strict=True):
        for axis, kind in zip(line, ('logit', 'feature'), strict=True):
            if kind in off.get(method, ()):
                axis.text(.5, .5, 'not distilled', transform=axis.transAxes,
                          ha='center', color='0.4')
            else:
                _plot_shares(axis, group, kind, names, mark)
            axis.grid(alpha=.25)
        line[0].set_ylabel(method, fontsize=9)
    top = axes[0]
    top[0].set_title('share of logit distillation', fontsize=10)
    top[1].set_title('share of feature distillation', fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel('student iterations')
    for axis in axes.flat:
        axis.set_ylim(0, None)
    figure.suptitle(title, fontsize=11)
    handles = {
        f'{name} ({mark[name]})' if name in mark else name:
        Line2D([], [], color=f'C{i}', linewidth=1.7,
               linestyle='--' if name in mark else '-')
        for i, name in enumerate(names)
    }
    handles['equal'] = Line2D([], [], color='0.5', linewidth=1, linestyle=':')
    figure.legend(list(handles.values()), list(handles),
                  loc='outside lower center', ncols=len(names) + 1,
                  fontsize=9)
    return figure


def _plot_shares(axis: Any, group: Sequence[WeightRecord], kind: str,
                 names: Sequence[str], mark: Mapping[str, str]) -> None:
    points = sorted(set(group[0].iterations).intersection(
        *(r.iterations for r in group)))
    tables = [dict(zip(r.iterations, getattr(r, kind))) for r in group]
    teachers = group[0].teachers
    sums = [[statistics.fmean(t[p][m] for t in tables)
             for m in range(len(teachers))] for p in points]
    total = [math.fsum(row) for row in sums]
    shares = [[row[m] / (t or 1.) for row, t in zip(sums, total)]
              for m in range(len(teachers))]
    for m, teacher in enumerate(teachers):
        axis.plot(points, shares[m],
                  linestyle=_in_turns(shares, m) or
                  ('--' if teacher in mark else '-'),
                  color=f'C{names.index(teacher)}', linewidth=1.7,
                  marker='o' if len(points) < 4 else None, markersize=3)
    axis.axhline(1 / len(teachers), color='0.5', linewidth=1, linestyle=':')


def _in_turns(shares: Sequence[Sequence[float]],
              m: int) -> tuple[float, tuple[float, float]] | None:
    """Line style of teacher ``m`` if other teachers have the same shares:
    dashes that alternate with theirs. ``None`` if no other teacher has."""
    together = [
        k for k, other in enumerate(shares)
        if all(abs(a - b) < _SAME for a, b in zip(shares[m], other))
    ]
    if len(together) < 2:
        return None
    on, count = 6., len(together)
    return on * (-together.index(m) % count), (on, on * (count - 1))


def plot_flows(records: Mapping[str, Sequence[FlowRecord]],
               title: str) -> Figure:
    """Plot p_w of student and teachers, mean over layers, as in Fig. 1c and 7
    of Knowledge Flow; a panel a method.

    Args:
        records: Records by the method's title, one a seed. Seeds are faint
            lines, their mean is a strong one.
        title: Title of the figure.
    """
    columns = min(3, len(records))
    rows = math.ceil(len(records) / columns)
    figure = Figure(figsize=(1. + 3.6 * columns, 1.2 + 2.5 * rows),
                    layout='constrained')
    FigureCanvasAgg(figure)
    axes = list(
        figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axis, (method, group) in zip(axes, records.items()):
        means = [record.mean() for record in group]
        points = sorted(set(group[0].iterations).intersection(
            *(r.iterations for r in group)))
        for m, name in enumerate(means[0]):
            colour = 'black' if name == STUDENT else f'C{m - 1}'
            tables = [dict(zip(r.iterations, mean[name]))
                      for r, mean in zip(group, means)]
            for table in tables if len(tables) > 1 else ():
                axis.plot(list(table), list(table.values()), color=colour,
                          alpha=.25, linewidth=.8)
            axis.plot(points, [statistics.fmean(t[p] for t in tables)
                               for p in points],
                      color=colour, linewidth=1.8, label=name)
        axis.set_title(method, fontsize=9)
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=.25)
        axis.legend(fontsize=8)
        axis.set_xlabel('student iterations', fontsize=8)
    for axis in axes[len(records):]:
        axis.set_visible(False)
    figure.supylabel('p_w, mean over layers', fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    temporary = path.with_name(f'.{path.name}.tmp')
    figure.savefig(temporary, dpi=110, format='png')
    temporary.replace(path)
    return path
