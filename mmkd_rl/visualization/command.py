"""Command line of the tools that draw a record of a run, and its pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from mmkd_rl.utils.cli import clear_errors
from mmkd_rl.visualization.common import Record, check_marks


def draw_record(description: str | None, record: type[Record],
                plot: Callable[[Any, Mapping[str, str], str], Figure],
                file: str, hook: str, title: str,
                argv: list[str] | None = None) -> None:
    """Read a record, draw it, and print the path of the picture.

    Args:
        description: Description of the tool.
        record: Class of the record.
        plot: Function from record, marks and title to the figure.
        file: File name of the record in a work directory.
        hook: Name of the hook that writes the record, for messages.
        title: Default title.
        argv: Arguments; ``None``: those of the process.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'record', help=f'{file} of a run, or its work directory')
    parser.add_argument(
        '--out', help='picture to write (default: beside the record)')
    parser.add_argument(
        '--mark',
        action='append',
        default=[],
        metavar='TEACHER=NOTE',
        help='draw a teacher dashed, with a note in the legend')
    parser.add_argument('--title', default=title)
    args = parser.parse_args(argv)
    path = args.record
    if os.path.isdir(path):
        path = os.path.join(path, file)
    out = args.out or os.path.splitext(path)[0] + '.png'
    with clear_errors():
        if not os.path.exists(path):
            raise FileNotFoundError(
                f'{path!r}: no such file; runs with {hook} write one')
        mark = dict(_note(entry) for entry in args.mark)
        found: Any = record.load(path)
        check_marks('--mark', mark, found.teachers)
        figure = plot(found, mark, args.title)
        write_picture(figure, out)
    print(out)


def write_picture(figure: Figure, out: str) -> None:
    """Write a figure to a file.

    Raises:
        ValueError: The file cannot be written.
    """
    try:
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise ValueError(f'--out {out!r}: {error}') from error


def _note(entry: str) -> tuple[str, str]:
    teacher, equals, note = entry.partition('=')
    if not equals:
        raise ValueError(f'--mark must be TEACHER=NOTE, got {entry!r}')
    return teacher, note
