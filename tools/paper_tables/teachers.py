"""Teachers of a run: where their weights come from, or that there are none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from paper_tables.training import Run

#: Where configs look for weights that others have trained and published; what
#: is trained here lies in work_dirs.
PUBLIC = 'checkpoints'


@dataclass
class Teacher:
    """A teacher of a run.

    Attributes:
        name: In the pool.
        config: Path or name of its config, or that itself.
        checkpoint: File of its weights.
        identity: Of these.
        run: That trains it; ``None``: the weights are there.
    """
    name: str
    config: str | dict
    checkpoint: str
    identity: str
    run: Run | None = None


@dataclass(frozen=True)
class Absent:
    """A teacher whose public weights are not there.

    Attributes:
        name: In the pool.
        checkpoint: Where they were looked for.
        config: Whose head says where they are.
    """
    name: str
    checkpoint: str
    config: str


class NoWeights(FileNotFoundError):
    """Public weights that are not there, of one teacher or several."""

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
