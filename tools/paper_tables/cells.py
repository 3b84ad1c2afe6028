"""A table of a paper: its cells, students and methods."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        student: Name as in the configs' names.
        method: Likewise; an ablation adds what it changes.
        title: The method's name in the paper.
        config: File under ``configs/``: the training of the student alone.
        strategy: What is distilled, from ``configs/_base_/strategies``;
            ``''``: nothing.
        pool: The teachers, from ``configs/_base_/pools``; ``NAME:N``: the
            first N; ``NAME:A,B``: those of these names.
        terms: Distillation terms in place of the strategy's.
        changes: Settings that differ then, as ``--cfg-options`` has them.
        mean: The paper's number; ``None``: it has none.
        std: Its standard deviation; ``None``: not printed.
        extra: Not the paper's: run only when it is asked for by name.
    """
    student: str
    method: str
    title: str
    config: str
    mean: float | None = None
    std: float | None = None
    extra: bool = False
    strategy: str = ''
    pool: str = ''
    terms: tuple[dict, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper.

    Attributes:
        name: As on the command line.
        title: What it shows.
        source: Where it stands.
        data: The data set of the paper's experiment.
        cells: Row by row.
        students: The paper's names of the students.
        stand_in: Whose configs are shrunk at the small scales, where all
            students become one.
        note: What the reader must know about our version.
        scales: At which it is run; the first one is the default.
        as_is: No student stands in for all: a small scale is the configs as
            they are (``short``) or each made smaller (``tiny``).
        seconds: Expected of a run at the scale ``short`` on one core, by
            method or teacher; for ``as_is`` only.
    """
    name: str
    title: str
    source: str
    data: str
    cells: tuple[Cell, ...]
    students: Mapping[str, str]
    stand_in: str
    note: str = ''
    scales: tuple[str, ...] = ('paper', 'short', 'tiny')
    as_is: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def methods(self) -> dict[str, str]:
        """Titles by name, in the table's order."""
        return {cell.method: cell.title for cell in self.cells}

    def select(self,
               students: Iterable[str] | None = None,
               methods: Iterable[str] | None = None) -> list[Cell]:
        """The cells of some students and methods; ``None``: of all but extras.

        Raises:
            ValueError: A name that the table does not have.
        """
        students = list(students or self.students)
        # 'MTKD_RL' and 'mtkd-rl' are one, but some names have both signs.
        spelled = {_spelling(name): name for name in self.methods}
        named = [spelled.get(_spelling(n), n) for n in methods or []]
        check_names('--students', students, self.students, self.name)
        check_names('--methods', named, self.methods, self.name)
        return [
            cell for cell in self.cells if cell.student in students and
            (cell.method in named if named else not cell.extra)
        ]


def _spelling(name: str) -> str:
    return name.lower().replace('_', '-')


def check_names(key: str, given: Iterable[str], known: Iterable[str],
                where: str) -> None:
    """Refuse unknown names and tell the nearest.

    Raises:
        ValueError: One of ``given`` is not in ``known``.
    """
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(
                name.lower(), known, n=3, cutoff=0.5)
            hint = f' (near: {", ".join(near)})' if near else ''
            raise ValueError(f'{key}: {where} has no {name!r}{hint}; it has '
                             f'{", ".join(known)}')
