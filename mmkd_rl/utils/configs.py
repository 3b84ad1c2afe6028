"""Reads configs, changes settings, and sets defaults that tools must set."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import Runner
from mmengine.utils import is_installed

from mmkd_rl.utils.patches import patch_mmengine


def load_config(path: str | os.PathLike, key: str = 'config') -> Config:
    """Read a config from a file, or from a package as ``mmdet::...``.

    Args:
        path: The file, or ``'package::path'``.
        key: Key of the path, for messages.

    Raises:
        FileNotFoundError: There is no such file, or a base is missing. The
            message has similar names of the same folder.
        ValueError: The package is not installed, or two bases have a key in
            common.
    """
    path = os.fspath(path)
    # A file, too, may have bases such as mmseg::_base_/default_runtime.py.
    patch_mmengine()
    if '::' in path:
        require_package(path, key)
    file = file_of(path) if '::' in path else Path(path)
    if not file.is_file():
        if '::' in path:
            raise FileNotFoundError(
                f'{key} {path!r} is no config of the package'
                f'{_near_in_package(path)}')
        message = f'{key} {path!r} is not a file'
        if file.parent.is_dir():
            names = [p.name for p in file.parent.glob('*.py')]
            near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.5)
            if near:
                message += f'; {file.parent} has {", ".join(near)}'
        else:
            message += f': there is no folder {str(file.parent)!r}'
        raise FileNotFoundError(message)
    try:
        return Config.fromfile(file)
    except KeyError as error:
        if 'Duplicate key' not in str(error):
            raise
        raise ValueError(
            f'{key} {path!r}: {error.args[0].strip()}. Two files of a list '
            '_base_ = [...] may not have a key in common. Keep one of the two '
            'as base, and write what the other has (such as custom_hooks) '
            'into the config') from error


def _near_in_package(path: str) -> str:
    """Configs of the package with similar names, as the end of a message."""
    scope, _, name = path.partition('::')
    root = configs_of(scope)
    names = [p.relative_to(root).as_posix() for p in root.rglob('*.py')]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return '; did you mean ' + ' or '.join(
        f'{scope}::{n}' for n in near) + '?' if near else ''


def configs_of(scope: str) -> Path:
    """The folder of an installed package's configs."""
    spec = importlib.util.find_spec(scope)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / '.mim' / 'configs'


def file_of(config: str) -> Path:
    """The file of an installed package's config, ``'mmseg::pspnet/x.py'``.

    MMEngine's function for names finds the same files, but takes no folders
    such as ``gn+ws``, and ten times as long.
    """
    scope, _, path = config.partition('::')
    return configs_of(scope) / path


def class_name(kind: Any) -> str:
    """The name of a class in a config without its package: ``'ResNet'`` for
    ``'mmpretrain.ResNet'``.

    Args:
        kind: Value of a config's ``type``: a name or a class.
    """
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def config_name(path: str) -> str:
    """The config's file name without folder and suffix."""
    return Path(path.split('::')[-1]).stem


def require_package(config: str, key: str) -> None:
    """Check that a config's package is installed; MMEngine would install it.

    Raises:
        ValueError: The package of ``'package::path'`` is not installed.
    """
    scope = config.partition('::')[0]
    if not is_installed(MODULE2PACKAGE.get(scope, scope)):
        raise ValueError(f'{key}={config!r}: package {scope!r} is not '
                         'installed')


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Change settings given with ``--cfg-options``, in place.

    A hook may be given by its type instead of its index, which depends on the
    other hooks: ``custom_hooks.KnowledgeFlowHook.kl_weight``.

    Args:
        cfg: The config.
        options: Values by dotted key.

    Raises:
        ValueError: There is no custom hook of a type, or several; or a key
            is nearly one of the config or of MMEngine's runner.
    """
    known = [*cfg.keys(), *inspect.signature(Runner.__init__).parameters]
    for key in options:
        root = key.partition('.')[0]
        near = difflib.get_close_matches(root, known, n=1, cutoff=.8)
        if root not in known and near:
            raise ValueError(f'--cfg-options {key}: the config has no '
                             f'{root!r}; did you mean {near[0]!r}?')
    cfg.merge_from_dict({_with_index(cfg, key): value
                         for key, value in options.items()})


def _with_index(cfg: Config, key: str) -> str:
    root, _, rest = key.partition('.')
    name, _, rest = rest.partition('.')
    if root != 'custom_hooks' or not name or name.isdecimal():
        return key
    names = [class_name(hook.get('type'))
             for hook in cfg.get('custom_hooks') or ()]
    if names.count(name) != 1:
        has = ', '.join(f'{i}: {n}' for i, n in enumerate(names))
        raise ValueError(f'{key}: custom_hooks has {names.count(name)} of '
                         f'type {name}; there are {has or "none at all"}')
    return f'{root}.{names.index(name)}' + (f'.{rest}' if rest else '')


def complete_loaders(cfg: Config) -> None:
    """Set the loader options that MMPretrain's tools set, in place.

    Images of classifiers are collated by the workers. A ``collate_fn`` cannot
    be in a base that is inherited as ``package::path``: MMEngine writes a
    ``_scope_`` into each dict with a ``type`` there, and passes it to the
    function.
    """
    theirs = cfg.get('default_scope') == 'mmpretrain'
    if not theirs and not _reads_classes(cfg):
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is None:
            continue
        loader.setdefault('collate_fn', dict(type='default_collate'))
        if theirs:
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers',
                              loader.get('num_workers', 0) > 0)


def _reads_classes(cfg: Config) -> bool:
    """Whether the data preprocessor is MMPretrain's for classifiers."""
    model = cfg.get('model') or {}
    student = model.get('student')
    places = [cfg, model, student if isinstance(student, dict) else {}]
    kinds = [(place.get('data_preprocessor') or {}).get('type')
             for place in places]
    return any(class_name(kind) == 'ClsDataPreprocessor'
               for kind in kinds)


def import_ours(cfg: Config) -> None:
    """Add this package to ``custom_imports``, so that other tools can run the
    config."""
    imports = cfg.get('custom_imports') or {}
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if 'mmkd_rl' not in names:
        cfg.custom_imports = dict(
            imports=[*names, 'mmkd_rl'],
            allow_failed_imports=imports.get('allow_failed_imports', False))
