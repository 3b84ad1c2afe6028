"""Report of our results beside the paper's: Markdown, JSON and pictures.

Mean and sample standard deviation (n - 1) are over seeds; one seed has no
standard deviation. "Last" is the table's metric at the end of a run, "best"
its highest value on the test set, which the published code reports.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from paper_tables import runs
from paper_tables.cells import Cell, Table
from paper_tables.pictures import SPOILED, draw
from paper_tables.scales import Scale
from paper_tables.text import NOTHING, markdown, mean_std, plus_minus
from task_runner import clock


@dataclass
class Row:
    """A cell of the paper's table and the results of its runs.

    Attributes:
        cell: Cell of the table.
        student: Name of the student that was trained.
        results: Results of the finished runs, by seed.
        folder: Folder of the runs.
        paper: Mean and standard deviation in the paper, by the paper's name
            of the student.
        unspoiled: Last accuracy of the same cell with the unspoiled pool, %,
            by seed.
        state: State of the runs that are not finished, in words.
        off: Kinds of distillation that the config turns off.
        by_epoch: Whether the training counts epochs, not iterations.
    """
    cell: Cell
    student: str
    results: dict[int, runs.Result]
    folder: Path
    paper: dict[str, tuple[float | None, float | None]]
    unspoiled: Mapping[int, float] = field(default_factory=dict)
    state: str = ''
    off: Sequence[str] = ()
    by_epoch: bool = True

    def values(self, key: str) -> list[float]:
        """Attribute ``key`` of the results of all seeds."""
        return [float(getattr(self.results[s], key))
                for s in sorted(self.results)]

    def change(self) -> float | None:
        """Mean difference to the unspoiled pool in points, over the seeds that
        both have; ``None`` if there are none."""
        both = [seed for seed in self.results if seed in self.unspoiled]
        return mean_std([self.results[seed].last - self.unspoiled[seed]
                         for seed in both])[0]

    def as_dict(self) -> dict[str, Any]:
        """Content of the row in the JSON file."""
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
        table: Table of the paper.
        scale: Scale of the runs.
        rows: Rows in the order of the paper.
        teachers: Results of the teachers that were trained, by name.
        command: Command that made the report.
        seeds: Seeds of the request.
        spoil: Teacher that was trained on permuted labels, if any.
        notes: Additional notes.
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
        """Write the report into a folder.

        Returns:
            The files: Markdown, JSON, pictures.
        """
        stem = self.table.name + (f'_spoil-{self.spoil}' if self.spoil else '')
        pictures = draw(self, folder, stem)
        markdown, data = folder / f'{stem}.md', folder / f'{stem}.json'
        runs.write_text(markdown, self.markdown([p.name for p in pictures]))
        runs.write_json(data, self.as_dict())
        return [markdown, data, *pictures]

    def as_dict(self) -> dict[str, Any]:
        """Content of the JSON file."""
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
        """Text of the Markdown file.

        Args:
            pictures: File names of the pictures.
        """
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
                 markdown(['', ''], head, numbers=False), '']
        lines += [f'- {note}' for note in self._all_notes()]
        lines += ['', *self._teacher_lines(), *self._result_lines()]
        for name in pictures:
            lines += ['', f'![{Path(name).stem}]({name})']
        return '\n'.join(lines) + '\n'

    def _all_notes(self) -> list[str]:
        notes = [
            f'Numbers are {self.table.metric.title} in %. ± is the sample '
            'standard deviation over seeds. "Best" is the highest value of '
            'each run on the test set, "last" the one at its end. Rows '
            'may be of earlier commands, too. Times are those of all attempts '
            'at a run.'
        ]
        if self.scale.student is not None:
            notes.append(
                "Not the paper's experiment: its data are "
                f'{self.table.data}, its students {self._student_titles()}; '
                "here one small student replaces all of them. The paper's "
                'numbers are shown only to compare the order of the methods. '
                'Losses and strategies are those of its configs; '
                "MTKD-RL's agent is trained every "
                f'{_turn(self.scale)}.')
        elif not self.spoil and self.scale.shrink is None and \
                self._has_paper():
            notes.append("What differs from the paper is in each config's "
                         'head.')
        if self.spoil:
            notes.append(
                f'Teacher {self.spoil} was trained on permuted classes, so '
                'it is confident and always wrong; its accuracy below is on '
                'the true labels. "Change" is the difference to the runs with '
                'the unspoiled teachers: last epoch, mean over the seeds that '
                'both have.')
        notes += [self.table.note] if self.table.note else []
        return notes + self.notes

    def _has_paper(self) -> bool:
        """Whether the paper has a number of the table."""
        return any(cell.mean is not None for cell in self.table.cells)

    def _student_titles(self) -> str:
        return ', '.join(self.table.students.values())

    def _teacher_lines(self) -> list[str]:
        if not self.teachers:
            return []
        rows = [
            [f'{name} ({SPOILED})' if name == self.spoil else name,
             plus_minus(r.last), plus_minus(r.best), clock(r.seconds),
             f'{r.cpu_seconds:.0f}'] for name, r in self.teachers.items()
        ]
        head = 'teacher or backbone, top-1 %' if self.table.has_starts \
            else 'teacher'
        return [markdown([head, 'last', 'best', 'wall, all attempts',
                          'CPU s'], rows), '']

    def _result_lines(self) -> list[str]:
        papers = list(dict.fromkeys(
            name for row in self.rows for name in row.paper))
        own = self.scale.student is None
        if not self._has_paper():
            papers, own = [], False
        columns = ['method', 'n', 'seeds', 'last', 'best', 'each seed, last']
        columns += ['change'] if self.spoil else []
        columns += ['paper'] if own else [f'paper, {n}' for n in papers]
        columns += ['wall a run', 'CPU s a run']
        lines = []
        for student in dict.fromkeys(row.student for row in self.rows):
            cells = [self._result_cells(row, papers, own)
                     for row in self.rows if row.student == student]
            lines += [f'## {self.table.students.get(student, student)}', '',
                      markdown(columns, cells), '']
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


def machine() -> str:
    """Number of cores, processor, GPU and versions as text."""
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
