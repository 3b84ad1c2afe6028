"""Functions of all pictures: records on disk, figures, colours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, TypeVar

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmkd_rl.utils import checkpoint_io

R = TypeVar('R', bound='Record')


@dataclass
class Record:
    """Numbers recorded over training, saved as a JSON file.

    Attributes:
        what: Name of the numbers, for messages.
    """
    what: ClassVar[str]

    def save(self, path: str) -> None:
        """Write the record as JSON, completely or not at all."""

        def write(temporary: str) -> None:
            with open(temporary, 'w') as file:
                json.dump(asdict(self), file, indent=1)

        checkpoint_io.write_whole(path, write)

    @classmethod
    def load(cls: type[R], path: str) -> R:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: No such file.
            ValueError: The file is no record of this class.
        """
        with open(path) as file:
            try:
                return cls(**json.load(file))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f'{path!r} is no record of {cls.what}: {error}'
                ) from error


def to_array(figure: Figure) -> np.ndarray:
    """A figure as RGB, [H, W, 3] uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def color(index: int) -> str:
    """Colour of the teacher with this index, the same in all pictures."""
    return f'C{index % 10}'


def check_marks(key: str, mark: Mapping[str, str],
                teachers: Sequence[str]) -> None:
    """Check that the teachers that have notes exist.

    Args:
        key: Config key of the notes, for the message.
        mark: Notes by teacher.
        teachers: Names of the teachers.

    Raises:
        ValueError: A teacher with a note does not exist.
    """
    if unknown := set(mark) - set(teachers):
        raise ValueError(f'{key} has {sorted(unknown)}; the teachers are '
                         f'{list(teachers)}')
