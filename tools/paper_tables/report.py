"""A table of what came out beside the paper's: Markdown, JSON and pictures.

Mean and standard deviation are over seeds; the latter divides by n - 1, and
one seed has none. "Last" is the last epoch, "best" each run's best one, chosen
on the test set, as the published code reports it.
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmkd_rl.visualization.flow import STUDENT, FlowRecord
from mmkd_rl.visualization.weights import WeightRecord
from paper_tables import runs
from paper_tables.cells import Cell, Table
from paper_tables.scales import Scale
from task_runner import clock

NOTHING = '–'
# Shares that are nearer than this are one line in the picture.
_SAME = .01
_COLOURS = ('#444444', '#8c564b', '#1f77b4', '#17becf', '#2ca02c', '#bcbd22',
            '#ff7f0e', '#9467bd', '#d62728', '#e377c2', '#7f7f7f', '#aec7e8',
            '#98df8a', '#c5b0d5', '#ffbb78', '#000080')


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); ``None``: undefined."""
    if not values:
        return None, None
    return (statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else None)


def plus_minus(mean: float | None, std: float | None) -> str:
    """``75.35 ± 0.33``."""
    if mean is None:
        return NOTHING
    return f'{mean:.2f}' + ('' if std is None else f' ± {std:.2f}')


@dataclass
class Row:
    """A cell of the paper's table and what came out of its runs.

    Attributes:
        cell: Of the table.
        student: That was trained, by name.
        results: Of the finished runs, by seed.
        folder: Of these runs.
        paper: The paper's number for each of its students.
        unspoiled: Last accuracy by seed of the same cell with the unspoiled
            pool.
        state: Of runs that are not finished.
        off: Kinds of distillation that its config turns off.
    """
    cell: Cell
    student: str
    results: dict[int, runs.Result]
    folder: Path
    paper: dict[str, tuple[float | None, float | None]]
    unspoiled: Mapping[int, float] = field(default_factory=dict)
    state: str = ''
    off: Sequence[str] = ()

    def values(self, key: str) -> list[float]:
        """One number of all seeds."""
        return [float(getattr(self.results[s], key))
                for s in sorted(self.results)]

    def change(self) -> float | None:
        """Mean difference to the unspoiled pool, over the seeds of both."""
        both = [seed for seed in self.results if seed in self.unspoiled]
        return mean_std([self.results[seed].last - self.unspoiled[seed]
                         for seed in both])[0]

    def as_dict(self) -> dict[str, Any]:
        """For the JSON table."""
        (last, last_std), (best, best_std) = map(
            mean_std, (self.values('last'), self.values('best')))
        return dict(
            student=self.student,
            method=self.cell.method,
            title=self.cell.title,
            config=self.cell.config,
            seeds=sorted(self.results),
            last=dict(mean=last, std=last_std, runs=self.values('last')),
            best=dict(mean=best, std=best_std, runs=self.values('best')),
            paper={name: dict(mean=mean, std=std)
                   for name, (mean, std) in self.paper.items()},
            unspoiled=dict(self.unspoiled),
            change=self.change(),
            seconds=mean_std(self.values('seconds'))[0],
            cpu_seconds=mean_std(self.values('cpu_seconds'))[0],
            commits=sorted({r.commit for r in self.results.values()}),
            accuracy={seed: result.accuracy
                      for seed, result in sorted(self.results.items())},
            folder=str(self.folder),
            state=self.state)


@dataclass
class Report:
    """A table with its results.

    Attributes:
        table: Of the paper.
        scale: Of the runs.
        rows: In the paper's order.
        teachers: Results of the teachers that were trained, by name.
        command: That made this.
        seeds: Asked for.
        spoil: The spoiled teacher.
        notes: More for the reader.
    """
    table: Table
    scale: Scale
    rows: list[Row]
    teachers: Mapping[str, runs.Result]
    command: str
    seeds: Sequence[int]
    spoil: str | None = None
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> list[Path]:
        """Write everything.

        Returns:
            The files: Markdown, JSON, pictures.
        """
        stem = self.table.name + (f'_spoil-{self.spoil}' if self.spoil else '')
        pictures = self._draw(folder, stem)
        markdown, data = folder / f'{stem}.md', folder / f'{stem}.json'
        runs.write_text(markdown, self.markdown([p.name for p in pictures]))
        runs.write_json(data, self.as_dict())
        return [markdown, data, *pictures]

    def as_dict(self) -> dict[str, Any]:
        """The content of the JSON table."""
        return dict(
            table=self.table.name,
            title=self.table.title,
            source=self.table.source,
            scale=self.scale.name,
            command=self.command,
            date=datetime.date.today().isoformat(),
            commit=runs.commit(),
            seeds=list(self.seeds),
            spoil=self.spoil,
            machine=machine(),
            notes=self.notes,
            teachers={
                name: dict(last=r.last, best=r.best, seconds=r.seconds,
                           cpu_seconds=r.cpu_seconds, commit=r.commit)
                for name, r in self.teachers.items()
            },
            rows=[row.as_dict() for row in self.rows])

    # ---------------------------------------------------------- Markdown

    def markdown(self, pictures: Sequence[str] = ()) -> str:
        """The Markdown table with its head."""
        spoiled = f', teacher {self.spoil} spoiled' if self.spoil else ''
        commits = sorted({c for row in self.rows
                          for r in row.results.values()
                          for c in r.commit.split() or ['unknown']})
        head = [
            ('scale', f'`{self.scale.name}`: {self.scale.summary}'),
            ('last command', f'`{self.command}`'),
            ('commit', f'{runs.commit() or "unknown"} (this table); '
             f'{", ".join(commits) or NOTHING} (students\' runs; "+": with '
             'changes)'),
            ('machine', machine()),
            ('date', datetime.date.today().isoformat()),
        ]
        lines = [f'# {self.table.source}: {self.table.title}{spoiled}', '',
                 '| | |', '|---|---|',
                 *(f'| {key} | {value} |' for key, value in head), '']
        lines += [f'- {note}' for note in self._all_notes()]
        lines += ['', *self._teacher_lines(), *self._result_lines()]
        for name in pictures:
            lines += ['', f'![{Path(name).stem}]({name})']
        return '\n'.join(lines) + '\n'

    def _all_notes(self) -> list[str]:
        notes = [
            'Top-1 accuracy in %. ± is the sample standard deviation over '
            'seeds. "Best" is each run\'s best epoch on the test set. Rows '
            'may be of earlier commands, too. Times are those of all attempts '
            'at a run.'
        ]
        if self.scale.student is not None:
            notes.append(
                "Not the paper's experiment: its data are "
                f'{self.table.data}, its students {self._student_titles()}; '
                'all stand here as one small student. Its numbers are shown '
                'for the order of the methods only. Losses and strategies are '
                "those of its configs; MTKD-RL's agent is trained every "
                f'{_turn(self.scale)}.')
        elif not self.spoil and self.scale.shrink is None:
            notes.append("What differs from the paper is in each config's "
                         'head.')
        if self.spoil:
            notes.append(
                f'Teacher {self.spoil} was trained with its classes permuted, '
                'so that it is surely wrong; its accuracy below is on the '
                'true labels. "Change" is against the unspoiled pool: the '
                "last epoch's mean difference over the seeds of both.")
        notes += [self.table.note] if self.table.note else []
        return notes + self.notes

    def _student_titles(self) -> str:
        return ', '.join(self.table.students.values())

    def _teacher_lines(self) -> list[str]:
        if not self.teachers:
            return []
        lines = ['| teacher | last | best | wall, all attempts | CPU s |',
                 '|---|---:|---:|---:|---:|']
        for name, r in self.teachers.items():
            title = f'{name} ({self.spoil_note})' if name == self.spoil \
                else name
            lines.append(f'| {title} | {r.last:.2f} | {r.best:.2f} | '
                         f'{clock(r.seconds)} | {r.cpu_seconds:.0f} |')
        return [*lines, '']

    spoil_note = 'labels permuted'

    def _result_lines(self) -> list[str]:
        papers = list(dict.fromkeys(
            name for row in self.rows for name in row.paper))
        own = self.scale.student is None
        columns = ['method', 'n', 'seeds', 'last', 'best', 'each seed, last']
        columns += ['change'] if self.spoil else []
        columns += ['paper'] if own else [f'paper, {n}' for n in papers]
        columns += ['wall a run', 'CPU s a run']
        lines = []
        for student in dict.fromkeys(row.student for row in self.rows):
            rows = [row for row in self.rows if row.student == student]
            lines += [f'## {self.table.students.get(student, student)}', '',
                      '| ' + ' | '.join(columns) + ' |',
                      '|---|' + '---:|' * (len(columns) - 1)]
            for row in rows:
                lines.append('| ' + ' | '.join(
                    self._result_cells(row, papers, own)) + ' |')
            lines.append('')
        return lines[:-1]

    def _result_cells(self, row: Row, papers: list[str],
                      own: bool) -> list[str]:
        d = row.as_dict()
        cells = [
            row.cell.title + (f' ({row.state})' if row.state else ''),
            str(len(row.results)),
            ', '.join(map(str, sorted(row.results))) or NOTHING,
            plus_minus(d['last']['mean'], d['last']['std']),
            plus_minus(d['best']['mean'], d['best']['std']),
            ' '.join(f'{v:.2f}' for v in d['last']['runs']) or NOTHING,
        ]
        if self.spoil:
            cells.append(NOTHING if d['change'] is None else
                         f'{d["change"]:+.2f}')
        wanted = list(row.paper) if own else papers
        cells += [plus_minus(*row.paper.get(n, (None, None))) for n in wanted]
        cells += [NOTHING if d['seconds'] is None else clock(d['seconds']),
                  NOTHING if d['cpu_seconds'] is None else
                  f'{d["cpu_seconds"]:.0f}']
        return cells

    # ---------------------------------------------------------- pictures

    def _draw(self, folder: Path, stem: str) -> list[Path]:
        out = []
        students = list(dict.fromkeys(row.student for row in self.rows))
        # By the table's order, so that a method keeps its colour.
        colours = {name: _COLOURS[i % len(_COLOURS)]
                   for i, name in enumerate(self.table.methods)}
        for student in students:
            rows = [row for row in self.rows
                    if row.student == student and row.results]
            suffix = f'_{student}' if len(students) > 1 else ''
            title = f'{self.table.source}, {student}, scale {self.scale.name}'
            if self.spoil:
                title += f', {self.spoil} spoiled'
            if rows:
                out.append(_save(plot_accuracy(rows, title, colours),
                                 folder / f'{stem}_accuracy{suffix}.png'))
            records = {row.cell.title: _records(row) for row in rows}
            records = {name: found for name, found in records.items() if found}
            if records:
                mark = {self.spoil: self.spoil_note} if self.spoil else {}
                off = {row.cell.title: row.off for row in rows}
                out.append(_save(plot_weights(records, title, mark, off),
                                 folder / f'{stem}_weights{suffix}.png'))
            flows = {row.cell.title: _flows(row) for row in rows}
            flows = {name: found for name, found in flows.items() if found}
            if flows:
                out.append(_save(plot_flows(flows, title),
                                 folder / f'{stem}_flow{suffix}.png'))
        return out


def plot_accuracy(rows: Sequence[Row], title: str,
                  colours: Mapping[str, str]) -> Figure:
    """Mean accuracy of each method over epochs; seeds as faint lines.

    Args:
        rows: Each with at least one result.
        title: Of the figure.
        colours: By method.
    """
    figure = Figure(figsize=(9, 5), layout='constrained')
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for row in rows:
        colour = colours[row.cell.method]
        curves = [{int(epoch): top1 for epoch, top1 in r.accuracy}
                  for r in row.results.values()]
        # Only where all seeds were validated: else the mean would jump.
        epochs = sorted(set(curves[0]).intersection(*curves))
        means = [statistics.fmean(c[e] for c in curves) for e in epochs]
        for curve in curves if len(curves) > 1 else ():
            axis.plot(list(curve), list(curve.values()), color=colour,
                      alpha=.22, linewidth=.8)
        spread = f'{means[-1]:.2f}' if means else NOTHING
        axis.plot(epochs, means, color=colour, linewidth=1.9,
                  marker='o' if len(epochs) < 20 else None, markersize=3.5,
                  label=f'{row.cell.title}  {spread}')
    axis.set_xlabel('epoch')
    axis.set_ylabel('top-1 accuracy, %')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(title, fontsize=11)
    axis.grid(alpha=.25)
    figure.legend(loc='outside right upper', fontsize=9,
                  title='mean over seeds, last')
    return figure


def plot_weights(records: Mapping[str, Sequence[WeightRecord]], title: str,
                 mark: Mapping[str, str] | None = None,
                 off: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """Mean weights of the teachers over training, a row a method.

    Args:
        records: By method, one a seed; weights are shown as shares.
        title: Of the figure.
        mark: Notes by teacher; those are drawn dashed. Teachers whose
            shares are the same take turns along their line.
        off: By method, the kinds (``'logit'``, ``'feature'``) that it does
            not distil.
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
    """Dashes of a line that lies on others, so that each is seen."""
    together = [
        k for k, other in enumerate(shares)
        if all(abs(a - b) < _SAME for a, b in zip(shares[m], other))
    ]
    if len(together) < 2:
        return None
    on, count = 6., len(together)
    return on * (-together.index(m) % count), (on, on * (count - 1))


def _records(row: Row) -> list[WeightRecord]:
    found = []
    for seed, result in sorted(row.results.items()):
        if result.weights:
            try:
                found.append(WeightRecord.load(
                    str(row.folder / f'seed{seed}' / result.weights)))
            except (OSError, ValueError):
                continue
    return [r for r in found if r.iterations
            and r.teachers == found[0].teachers]


def plot_flows(records: Mapping[str, Sequence[FlowRecord]],
               title: str) -> Figure:
    """p_w of student and teachers, mean over layers: Fig. 1c and 7 of
    Knowledge Flow, a panel a method.

    Args:
        records: By method, one a seed: each is a faint line, their mean a
            strong one.
        title: Of the figure.
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


def _flows(row: Row) -> list[FlowRecord]:
    found = []
    for seed, result in sorted(row.results.items()):
        if result.flow:
            try:
                found.append(FlowRecord.load(
                    str(row.folder / f'seed{seed}' / result.flow)))
            except (OSError, ValueError):
                continue
    return [r for r in found if r.iterations
            and r.teachers == found[0].teachers]


def _save(figure: Figure, path: Path) -> Path:
    temporary = path.with_name(f'.{path.name}.tmp')
    figure.savefig(temporary, dpi=110, format='png')
    temporary.replace(path)
    return path


def machine() -> str:
    """Cores, processor, GPU and versions."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                name = line.partition(':')[2].strip()
                break
    except OSError:
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else \
        'no GPU'
    return (f'{len(os.sched_getaffinity(0))} cores of {name}; {gpu}; '
            f'torch {torch.__version__}, Python {platform.python_version()}')


def _turn(scale: Scale) -> str:
    return 'epoch' if scale.turn is None else f'{scale.turn} iterations'
