"""Reads strategies, pools, teachers and terms from names and files."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_rl.options import parse_options
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.teachers.sources import named
from mmkd_rl.utils.checkpoint_io import last_checkpoint
from mmkd_rl.utils.configs import configs_of, load_config

_STRATEGIES, _POOLS = '_base_/strategies', '_base_/pools'
#: Settings of a strategy's file that go into the model.
MODEL_KEYS = ('logit_loss', 'feature_loss', 'losses', 'weighting',
              'projector')
TEACHER = 'NAME=CONFIG:CHECKPOINT'
EXAMPLE = 'r50=mmpretrain::resnet/resnet50_8xb32_in1k.py:r50.pth'


def parse_teacher(text: str | dict) -> dict:
    """A teacher's dict, from ``NAME=CONFIG:CHECKPOINT`` or from Python.

    >>> parse_teacher('a=mmdet::retinanet/x.py:https://host/a.pth')
    {'name': 'a', 'config': 'mmdet::retinanet/x.py', \
'checkpoint': 'https://host/a.pth'}

    Args:
        text: The string, or a dict, whose ``config`` may also be a Config,
            a ``pathlib.Path``, or a class or a function, see :func:`named`. A
            folder as checkpoint means the last checkpoint of the run in it.

    Raises:
        FileNotFoundError: The checkpoint is a folder without a checkpoint.
        ValueError: A part is missing.
        TypeError: ``text`` is neither a string nor a dict.
    """
    teacher = dict(text) if isinstance(text, dict) else _split(text)
    key = f'teacher {teacher.get("name")!r}'
    if 'config' in teacher:
        teacher['config'] = named(_as_data(teacher['config']), key)
    if isinstance(teacher.get('checkpoint'), str):
        teacher['checkpoint'] = last_checkpoint(
            teacher['checkpoint'], f'{key}: checkpoint')
    return teacher


def _as_data(config: Any) -> Any:
    """A config in a form that a config's file can have; what builds the
    network of a Config, without its data and schedule."""
    if isinstance(config, Config):
        return {k: v for k, v in config.to_dict().items()
                if k in ('default_scope', 'model', 'data_preprocessor')}
    return os.fspath(config) if isinstance(config, os.PathLike) else config


def _split(text: str) -> dict:
    """The parts of ``NAME=CONFIG:CHECKPOINT``."""
    if not isinstance(text, str):
        raise TypeError(f'a teacher must be a dict or {TEACHER!r}, got '
                        f'{text!r}')
    name, equals, rest = text.partition('=')
    config, checkpoint = _at_colon(rest)
    missing = (
        'no "="' if not equals else 'no name' if not name.strip() else
        'no config' if not config else
        'no checkpoint' if not checkpoint else '')
    if missing:
        raise ValueError(f'teacher {text!r} has {missing}; write {TEACHER}, '
                         f'such as {EXAMPLE} (CHECKPOINT may be untrained)')
    return dict(name=name.strip(), config=config, checkpoint=checkpoint)


def _at_colon(text: str) -> tuple[str, str | None]:
    """Config and checkpoint of ``CONFIG:CHECKPOINT``: divided at the first
    single colon after which the text before is a file; at the first one where
    there is no such file, or after a package's ``::``."""
    colons = [m.start() for m in re.finditer(r'(?<!:):(?!:)', text)]
    if not colons:
        return text, None
    place = next((i for i in colons if os.path.isfile(text[:i])), colons[0])
    return text[:place], text[place + 1:]


def parse_term(words: Sequence[str]) -> dict:
    """A term's config from a type and its options.

    >>> parse_term(['KDLoss', 'temperature=2.', 'loss_weight=1'])
    {'type': 'KDLoss', 'temperature': 2.0, 'loss_weight': 1}

    Args:
        words: The type, then ``OPTION=VALUE`` any number of times.

    Raises:
        ValueError: No type, or an option without ``=``.
    """
    kind, *rest = words
    if '=' in kind:
        raise ValueError(f'term {" ".join(words)!r} has no type; write KDLoss '
                         'temperature=2')
    return dict(type=kind, **parse_options(
        rest, f'term {" ".join(words)!r}', 'KDLoss temperature=2'))


def strategy_names() -> list[str]:
    """Names that :func:`distill` takes, without those of registered types."""
    return sorted(p.stem for p in _files(_STRATEGIES)
                  if p.stem != 'kd_fitnet')


def _files(folder: str) -> Iterator[Path]:
    return (configs_of('mmkd_rl') / folder).glob('*.py')


@lru_cache
def _of_package(name: str) -> dict:
    """A base config of this package; the caller must not change it."""
    return load_config(configs_of('mmkd_rl') / name).to_dict()


def split_names(strategy: str) -> list[str]:
    if not isinstance(strategy, str) or not strategy:
        raise TypeError(f'strategy must be a name such as {"mtkd_rl"!r}, got '
                        f'{strategy!r}')
    return [strategy] if _is_file(strategy) else strategy.split('+')


def _is_file(name: str) -> bool:
    return '::' in name or name.endswith('.py') or os.path.isfile(name)


def read_strategy(name: str) -> dict:
    """Settings that a strategy adds to a config."""
    if _is_file(name):
        cfg = load_config(name, 'strategy').to_dict()
        if not {'weighting', 'custom_hooks'} & set(cfg):
            raise ValueError(f'strategy {name!r} has neither weighting nor '
                             'custom_hooks; see configs/_base_/strategies')
        for key in MODEL_KEYS:
            if isinstance(cfg.get(key), str):
                raise ValueError(
                    f'strategy {name!r}: {key} must be a dict such as '
                    f'dict(type={cfg[key]!r}), got {cfg[key]!r}')
        return cfg
    if name in strategy_names():
        return copy.deepcopy(_of_package(f'{_STRATEGIES}/{name}.py'))
    kind = WEIGHTINGS.get(name) if name else None
    if kind is not None:
        return dict(weighting=dict(type=name))
    names = [*strategy_names(), *WEIGHTINGS.module_dict]
    near = difflib.get_close_matches(name, names, n=1, cutoff=.5)
    raise ValueError(
        f'strategy {name!r} is unknown'
        + (f'; did you mean {near[0]!r}? ' if near else '. ') +
        f'Known names: {", ".join(strategy_names())}; registered types: '
        f'{", ".join(sorted(WEIGHTINGS.module_dict))}; or give the path of a '
        'file')


def default_terms() -> dict[str, dict]:
    """``logit_loss`` and ``feature_loss`` of the strategies, which are those
    of classifiers."""
    plain = _of_package(f'{_STRATEGIES}/kd_fitnet.py')
    return {key: copy.deepcopy(plain[key])
            for key in ('logit_loss', 'feature_loss')}


def read_pool(pool: str | os.PathLike | None) -> list[dict]:
    """The teachers of a pool, or those that ``'POOL:WHICH'`` names.

    Args:
        pool: See :func:`distill`; ``None``: no pool.

    Raises:
        FileNotFoundError: No such pool.
        ValueError: The pool has no list of teachers, or lacks a named one.
    """
    if pool is None:
        return []
    name, which = _split_pool(os.fspath(pool))
    if _is_file(name):
        cfg = load_config(name, 'pool').to_dict()
    else:
        names = sorted(p.stem for p in _files(_POOLS))
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=.5)
            raise FileNotFoundError(
                f'pool {name!r} is unknown'
                + (f'; did you mean {near[0]!r}? ' if near else '. ') +
                f'Known names: {", ".join(names)}; or give the path of a file')
        cfg = _of_package(f'{_POOLS}/{name}.py')
    teachers = copy.deepcopy(cfg.get('teachers'))
    if not isinstance(teachers, list) or not teachers or not all(
            isinstance(t, (dict, str)) for t in teachers):
        raise ValueError(f'pool {name!r} must have teachers=[dict(name=..., '
                         f'config=..., checkpoint=...)], got {teachers!r}')
    return _some([parse_teacher(t) for t in teachers], name, which)


def _split_pool(pool: str) -> tuple[str, str | None]:
    """Split a pool's file or name from the text after its last single colon.

    >>> _split_pool('mmkd_rl::_base_/pools/cifar100_table1.py:2')
    ('mmkd_rl::_base_/pools/cifar100_table1.py', '2')
    """
    match = re.fullmatch(r'(.+?)(?<!:):(?!:)([^:/\\]*)', pool)
    if match is None or os.path.isfile(pool):
        return pool, None
    return match[1], match[2]


def _some(teachers: list[dict], pool: str, which: str | None) -> list[dict]:
    """The first N teachers, or those named in ``'A,B'``, in that order."""
    if which is None:
        return teachers
    if which.isdecimal():
        if not 0 < int(which) <= len(teachers):
            raise ValueError(f'pool {pool!r} has {len(teachers)} teachers, '
                             f'not {which}')
        return teachers[:int(which)]
    by_name = {str(t.get('name')): t for t in teachers}
    unknown = [n for n in which.split(',') if n not in by_name]
    if unknown:
        raise ValueError(f'pool {pool!r} has no teacher {unknown[0]!r}; it '
                         f'has {", ".join(by_name)}')
    return [by_name[n] for n in which.split(',')]
