"""A cell of a table as the config that is run, and as one command."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_rl.recipes import distill
from mmkd_rl.utils.configs import configs_of, merge_options
from paper_tables.cells import Cell


def load(name: str) -> Config:
    """A config of ours.

    Args:
        name: File under ``configs/``.

    Returns:
        A copy that the caller may change.

    Raises:
        FileNotFoundError: There is none.
    """
    path = configs_of('mmkd_rl') / name
    if not path.is_file():
        raise FileNotFoundError(f'configs/{name}: there is no such config')
    return copy.deepcopy(_read(path))


def load_named(name: str) -> Config:
    """A config as a teacher names it: a path, or ``mmkd_rl::...``.

    Raises:
        FileNotFoundError: There is none.
    """
    if name.startswith('mmkd_rl::'):
        return load(name.partition('::')[2])
    if '::' in name:
        import mmengine.hub
        return mmengine.hub.get_config(name)
    if not Path(name).is_file():
        raise FileNotFoundError(f'{name!r} is not a file')
    return Config.fromfile(name)


def read(cell: Cell) -> Config:
    """What a cell runs at the scale of its paper.

    Raises:
        FileNotFoundError, ValueError: See :func:`load` and
            :func:`mmkd_rl.distill`.
    """
    cfg = load(cell.config)
    if cell.strategy:
        cfg = distill(cfg, cell.strategy, pool=cell.pool,
                      terms=cell.terms or None)
        # Each run has a folder of its own.
        cfg.pop('work_dir')
    merge_options(cfg, cell.changes)
    return cfg


def command(cell: Cell) -> str:
    """A cell as one command of ``tools/train.py``, its lines folded."""
    words = [f'mmkd_rl::{cell.config}', *options(cell)]
    if cell.changes or cell.terms or ':' in cell.pool:
        # The folder's usual name says config and strategy only.
        words.append('--work-dir work_dirs/'
                     f'{Path(cell.config).stem}_{cell.method}')
    return 'python tools/train.py ' + ' \\\n    '.join(words)


def options(cell: Cell) -> list[str]:
    """Options of ``tools/train.py`` for a cell."""
    found = []
    if cell.strategy:
        found.append(f'--distill {cell.strategy} --pool {cell.pool}')
    for term in cell.terms:
        found.append(' '.join(['--term', term['type'], *(
            f'{k}={v}' for k, v in term.items() if k != 'type')]))
    if cell.changes:
        found.append(' '.join(['--cfg-options', *(
            f'{k}={_word(v)}' for k, v in cell.changes.items())]))
    return found


def _word(value: Any) -> str:
    """A value as ``--cfg-options`` reads it."""
    if not isinstance(value, list | tuple):
        return str(value)
    left, right = '[]' if isinstance(value, list) else '()'
    return f'"{left}{",".join(map(str, value))}{right}"'


@lru_cache(maxsize=256)
def _read(path: Path) -> Config:
    """A plan reads some configs dozens of times."""
    return Config.fromfile(path)
