"""Parts of a config whose weights come from other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmkd_rl.utils.configs import class_name, configs_of

_PUPILS = ('MultiTeacherDistiller', 'KnowledgeFlowBackbone')
_WORK = 'work_dirs'


def find(model: Any) -> list[Any]:
    """Parts of a model's config whose weights come from other runs.

    Teachers of a distiller or of Knowledge Flow, and what a network begins
    from: an ``init_cfg`` of type ``Pretrained`` with a file in ``work_dirs``.

    Returns:
        The parts themselves, in the order in which they stand.
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
    """Whether a run here has made it; blank: one whose file is left out."""
    return checkpoint == '' or (isinstance(checkpoint, str)
                                and Path(checkpoint).parts[:1] == (_WORK, ))


def fill(source: Any, config: str | dict, checkpoint: str) -> None:
    """Set the checkpoint of a teacher found by :func:`find`, in place."""
    source['checkpoint'] = checkpoint
    if 'name' in source:
        source['config'] = config


def origin(source: Any) -> tuple[str, str]:
    """Name of a source and of the config that makes its weights.

    An ``init_cfg`` has no name; its file tells the config, since
    ``work_dirs/CONFIG/epoch_N.pth`` is where that one's training puts it.

    Raises:
        FileNotFoundError: No config, or several, have that file's name.
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
