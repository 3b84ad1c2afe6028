"""Finds the parts of a config whose weights come from other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmkd_rl.utils.configs import class_name, configs_of

_PUPILS = ('MultiTeacherDistiller', 'KnowledgeFlowBackbone')
_WORK = 'work_dirs'


def find(model: Any) -> list[Any]:
    """Find the parts of a model's config whose weights come from other runs.

    These are teachers of a distiller or of Knowledge Flow, and each
    ``init_cfg`` of type ``Pretrained`` with a file in ``work_dirs``.

    Returns:
        The parts themselves, not copies, in the order of the config.
    """
    found = []
    if isinstance(model, dict):
        kind = class_name(model.get('type', ''))
        teachers = model.get('teachers')
        if kind in _PUPILS and isinstance(teachers, list | tuple):
            found += list(teachers)
            model = {k: v for k, v in model.items() if k != 'teachers'}
        if kind == 'Pretrained' and _is_ours(model.get('checkpoint')):
            found.append(model)
        model = list(model.values())
    if isinstance(model, list | tuple):
        for part in model:
            found += find(part)
    return found


def _is_ours(checkpoint: Any) -> bool:
    """Whether a checkpoint is that of a run: in ``work_dirs``, or ``''`` after
    :func:`fill` has removed the path."""
    return checkpoint == '' or (isinstance(checkpoint, str)
                                and Path(checkpoint).parts[:1] == (_WORK, ))


def fill(source: Any, config: str | dict, checkpoint: str) -> None:
    """Set the weights of a part that :func:`find` has found, in place.

    Args:
        source: The part.
        config: Config of the teacher; unused for an ``init_cfg``.
        checkpoint: Path of the weights.
    """
    source['checkpoint'] = checkpoint
    if 'name' in source:
        source['config'] = config


def origin(source: Any) -> tuple[str, str]:
    """Name of a source, and the config that trains its weights.

    An ``init_cfg`` has no name. Its config is found by the checkpoint's path
    ``work_dirs/CONFIG/epoch_N.pth``, to which the training of CONFIG writes.

    Raises:
        FileNotFoundError: No config, or several, are named CONFIG.
    """
    if 'name' in source:
        return str(source['name']), str(source['config'])
    stem = Path(source['checkpoint']).parent.name
    folder = configs_of('mmkd_rl')
    found = sorted(folder.resolve().rglob(f'{stem}.py'))
    if len(found) != 1:
        raise FileNotFoundError(
            f'checkpoint={source["checkpoint"]!r}: {len(found)} configs are '
            f'called {stem}.py, one would say how it is made')
    return stem, f'mmkd_rl::{found[0].relative_to(folder.resolve())}'
