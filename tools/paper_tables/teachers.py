"""Records of a run's teachers, and the error for missing weights."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from paper_tables.training import Run

#: Folder in which configs expect published weights; weights that are trained
#: here are in work_dirs.
PUBLIC = 'checkpoints'


@dataclass
class Teacher:
    """A teacher of a run.

    Attributes:
        name: Name in the pool.
        config: Config of the model, or its path or ``package::path``.
        checkpoint: Path or URL of the weights, or ``'untrained'``.
        identity: Identity of the weights, see :mod:`.identity`.
        run: Run that trains the teacher; ``None`` if no training is needed.
    """
    name: str
    config: str | dict
    checkpoint: str
    identity: str
    run: Run | None = None


@dataclass(frozen=True)
class Absent:
    """A teacher whose published weights are missing.

    Attributes:
        name: Name in the pool.
        checkpoint: Path of the missing file.
        config: Config of the teacher; its docstring says where to get the
            weights.
    """
    name: str
    checkpoint: str
    config: str


class NoWeights(FileNotFoundError):
    """Published weights of one or more teachers are missing."""

    def __init__(self, teachers: Iterable[Absent]) -> None:
        self.teachers = list(dict.fromkeys(teachers))
        lines = [
            f'  {t.name}: no {t.checkpoint!r}; see the head of '
            f'{t.config.replace("mmkd_rl::", "configs/")}'
            for t in self.teachers
        ]
        super().__init__('\n'.join([
            'public weights are missing, and these teachers are not trained '
            f'here (looked for from {os.getcwd()}):', *lines,
            'Each head says which weights they are, and how '
            'tools/model_converters/convert.py makes that file of them; or '
            'give a file as --teacher NAME=FILE'
        ]))
