"""Config of a cell of a table, and the command that trains it."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_rl.recipes import distill
from mmkd_rl.utils.configs import configs_of, load_config, merge_options
from paper_tables.cells import Cell


def load(name: str) -> Config:
    """Load a config of this project.

    Args:
        name: File under ``configs/``.

    Returns:
        A copy that the caller may change.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = configs_of('mmkd_rl') / name
    if not path.is_file():
        raise FileNotFoundError(f'configs/{name}: there is no such config')
    return copy.deepcopy(_read(path))


def load_named(name: str) -> Config:
    """Load the config of a teacher: a path, or ``package::path``.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if name.startswith('mmkd_rl::'):
        return load(name.partition('::')[2])
    return load_config(name)


def read(cell: Cell) -> Config:
    """Config of a cell at the paper's scale.

    Raises:
        FileNotFoundError, ValueError: See :func:`load` and
            :func:`mmkd_rl.distill`.
    """
    cfg = load(cell.config)
    if cell.strategy:
        cfg = distill(cfg, cell.strategy, pool=cell.pool,
                      terms=cell.terms or None)
        # The plan gives each run its own folder.
        cfg.pop('work_dir')
    merge_options(cfg, cell.changes)
    return cfg


def command(cell: Cell) -> str:
    """Command of ``tools/train.py`` for a cell, wrapped over lines."""
    words = [f'mmkd_rl::{cell.config}', *options(cell)]
    if work_dir(cell) != _usual_work_dir(cell):
        words.append(f'--work-dir {work_dir(cell)}')
    return 'python tools/train.py ' + ' \\\n    '.join(words)


def work_dir(cell: Cell) -> str:
    """Work directory of a cell's command.

    The default of ``tools/train.py`` is named after config and strategy, so
    that cells which differ in other settings would share it.
    """
    if cell.start is not None:
        return f'work_dirs/{cell.student}_{cell.method}'
    if cell.changes or cell.terms or ':' in cell.pool:
        return f'work_dirs/{Path(cell.config).stem}_{cell.method}'
    return _usual_work_dir(cell)


def _usual_work_dir(cell: Cell) -> str:
    name = Path(cell.config).stem
    return 'work_dirs/' + name + (
        '_' + cell.strategy if cell.strategy else '')


def options(cell: Cell) -> list[str]:
    """Options of ``tools/train.py`` for a cell, without its config."""
    found = []
    if cell.strategy:
        found.append(f'--distill {cell.strategy} --pool {cell.pool}')
    if cell.start is not None:
        found.append(f'--backbone-from {work_dir(cell.start)}')
    for term in cell.terms:
        found.append(' '.join(['--term', term['type'], *(
            f'{k}={v}' for k, v in term.items() if k != 'type')]))
    if cell.changes:
        found.append(' '.join(['--cfg-options', *(
            f'{k}={_word(v)}' for k, v in cell.changes.items())]))
    return found


def _word(value: Any) -> str:
    """Format a value for ``--cfg-options``."""
    if not isinstance(value, list | tuple):
        return str(value)
    left, right = '[]' if isinstance(value, list) else '()'
    return f'"{left}{",".join(map(str, value))}{right}"'


@lru_cache(maxsize=256)
def _read(path: Path) -> Config:
    """Read a config; cached, as a plan needs some configs dozens of times."""
    return load_config(path)
