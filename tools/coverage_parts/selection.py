"""The training configs that an installed toolbox ships."""

from __future__ import annotations

import difflib
import fnmatch
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mmkd_rl.utils.configs import (
    configs_of,
    file_of,
    load_config,
    require_package,
)

#: Settings without which a config is no training config.
NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')


def training_configs(toolbox: str, pattern: str | None = None) -> list[str]:
    """Names of a toolbox's training configs, as ``'mmseg::pspnet/x.py'``.

    A config that cannot be read is in the list: whether it is complete is
    unknown, and that it fails should be reported.

    Args:
        toolbox: Package of the configs.
        pattern: A part of the names, or a pattern with ``*``, ``?`` or
            ``[...]`` for the whole of the path in the toolbox; ``None``: all.

    Raises:
        ValueError: The toolbox is not installed, or there is no such config.
    """
    require_package(f'{toolbox}::', '--toolbox')
    root = configs_of(toolbox)
    paths = sorted(p.relative_to(root).as_posix()
                   for p in root.rglob('*.py'))
    paths = [p for p in paths if '_base_' not in PurePosixPath(p).parts]
    matching = [p for p in paths if _matches(p, pattern)]
    if not matching:
        raise ValueError(f'--filter {pattern!r} matches none of the '
                         f'{len(paths)} configs of {toolbox}; '
                         + _like(str(pattern), paths))
    names = [f'{toolbox}::{p}' for p in matching]
    complete = [name for name in names if _is_complete(file_of(name))]
    if not complete:
        raise ValueError(
            f'--filter {pattern!r} matches {len(matching)} configs of '
            f'{toolbox}, and none has all of {", ".join(NEEDED)}; give the '
            'name of a config that trains')
    return complete


def _matches(path: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    if any(sign in pattern for sign in '*?['):
        return fnmatch.fnmatchcase(path, pattern)
    return pattern in path


def _like(pattern: str, paths: Sequence[str]) -> str:
    """What a pattern may have meant: similar folders and files."""
    folders = sorted({p.partition('/')[0] for p in paths})
    near = difflib.get_close_matches(
        pattern.strip('*').strip('/'), [*folders, *paths], n=3, cutoff=.5)
    return 'similar names: ' + ', '.join(near) if near else \
        f'its folders are {", ".join(folders)}'


def _is_complete(path: Path) -> bool:
    try:
        cfg = load_config(path)
    except Exception:
        # Configs are code, so reading one may raise anything. It is reported
        # when the config is tried.
        return True
    return all(cfg.get(key) for key in NEEDED)


def sampled(names: Sequence[str], count: int | None, seed: int) -> list[str]:
    """A random sample without replacement, the same for the same seed;
    ``None``, or more than there are: all names."""
    if count is None or count >= len(names):
        return list(names)
    return random.Random(seed).sample(sorted(names), count)


def diverse_first(names: Sequence[str]) -> list[str]:
    """Reorder configs so that each folder's first comes before the second of
    any: their architectures differ most."""
    seen: Counter[str] = Counter()
    ranked = []
    for name in sorted(names):
        folder = name.rpartition('/')[0]
        seen[folder] += 1
        ranked.append((seen[folder], name))
    return [name for _, name in sorted(ranked)]
