"""Records of a paper's table and of its cells."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Metric:
    """Metric of a table's numbers.

    Attributes:
        key: Name in the log of a run.
        title: Name for the reader, without the unit, which is %.
        factor: Factor that makes the log's value a percentage.
    """
    key: str
    title: str
    factor: float = 1.


TOP1 = Metric('accuracy/top1', 'top-1 accuracy')
BOX_AP = Metric('coco/bbox_mAP', 'box AP', 100.)
MIOU = Metric('mIoU', 'mIoU')


@dataclass(frozen=True)
class Cell:
    """One number of a table, and the training that reproduces it.

    Attributes:
        student: Name of the student, as in the names of configs.
        method: Name of the method, for ``--methods``; an ablation has the
            changed setting in its name.
        title: Name of the method in the paper.
        config: File under ``configs/`` that trains the student alone.
        strategy: Name of the strategy in ``configs/_base_/strategies``; ``''``
            if the student is trained without distillation.
        pool: Name of the teacher pool in ``configs/_base_/pools``; ``NAME:N``
            for the first N teachers, ``NAME:A,B`` for the teachers A and B.
        terms: Distillation terms that replace the strategy's.
        changes: Changed settings, in the form of ``--cfg-options``.
        start: Cell whose trained student, of seed 0, is the backbone that all
            runs of this one start from; ``None`` to start as the config says.
        mean: Number in the paper, %; ``None`` if the paper has none.
        std: Standard deviation in the paper; ``None`` if it prints none.
        extra: A method of this project, which is run only if ``--methods``
            names it.
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
    start: Cell | None = None


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper.

    Attributes:
        name: Name on the command line.
        title: Subject of the table.
        source: Paper and number of the table.
        data: Data set of the paper's experiment.
        cells: Cells row by row.
        students: Names of the students in the paper, by their names here.
        stand_in: Student whose configs are used at the small scales, where
            one small student replaces all students.
        note: Differences from the paper's table, for the report.
        scales: Names of the scales; the first one is the default.
        as_is: Keep all students at the small scales: ``short`` runs the
            configs as they are, ``tiny`` makes each of them smaller.
        seconds: Expected time of a run at scale ``short`` on one core, by
            method or teacher; used with ``as_is`` only.
        metric: What the numbers measure.
    """
    name: str
    title: str
    source: str
    data: str
    cells: tuple[Cell, ...]
    students: Mapping[str, str]
    stand_in: str
    note: str = ''
    scales: tuple[str, ...] = ('paper', 'medium', 'short', 'tiny')
    as_is: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    metric: Metric = TOP1

    @property
    def has_starts(self) -> bool:
        """Whether it has detectors or segmentors that start from a trained
        backbone."""
        return any(cell.start for cell in self.cells)

    @property
    def methods(self) -> dict[str, str]:
        """Titles of the methods by name, in the order of the table."""
        return {cell.method: cell.title for cell in self.cells}

    def select(self,
               students: Iterable[str] | None = None,
               methods: Iterable[str] | None = None) -> list[Cell]:
        """Cells of some students and methods.

        Args:
            students: Names of students; ``None`` for all.
            methods: Names of methods; ``None`` for all except extra ones.

        Raises:
            ValueError: The table does not have one of the names.
        """
        students = list(students or self.students)
        # 'MTKD_RL' and 'mtkd-rl' are the same method. Names are looked up, not
        # rewritten, because some contain both '_' and '-'.
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
    """Check names; the message lists similar ones and all known ones.

    Args:
        key: Option of the user, for the message.
        given: Names to check.
        known: Allowed names.
        where: Name of the table or pool that has them, for the message.

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
