"""Registries of scope ``mmkd_rl``.

Registries of kinds that MMEngine has (models, hooks, ...) are children of
MMEngine's, so that a config of any OpenMMLab package can name our parts
(``type='mmkd_rl.CifarResNet'``) and our configs can name theirs. The others
hold kinds that only distillation has (weightings, rewards, ...).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from mmkd_rl.errors import is_ours, raised_at
from mmkd_rl.options import (
    ConfigError,
    Problem,
    below,
    check,
    problems,
    under,
)

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmkd_rl',
    locations=[
        'mmkd_rl.backbones', 'mmkd_rl.classifiers', 'mmkd_rl.distillers',
        'mmkd_rl.flow', 'mmkd_rl.losses', 'mmkd_rl.taps'
    ])
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='mmkd_rl',
    locations=['mmkd_rl.datasets'])
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mmkd_rl',
    locations=['mmkd_rl.datasets'])
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmkd_rl',
    locations=['mmkd_rl.datasets'])
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=MMENGINE_DATA_SAMPLERS,
    scope='mmkd_rl',
    locations=['mmkd_rl.datasets'])
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmkd_rl',
    locations=['mmkd_rl.engine.hooks'])

OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='mmkd_rl',
    locations=['mmkd_rl.engine.optim_wrapper'])

# We add nothing to these, but a config with ``default_scope='mmkd_rl'`` looks
# its optimisers and loops up here first and would be warned of each absence.
for _name in ('RUNNERS', 'RUNNER_CONSTRUCTORS', 'LOOPS',
              'MODEL_WRAPPERS', 'WEIGHT_INITIALIZERS', 'OPTIMIZERS',
              'OPTIM_WRAPPER_CONSTRUCTORS',
              'PARAM_SCHEDULERS', 'EVALUATOR', 'TASK_UTILS', 'VISUALIZERS',
              'VISBACKENDS', 'LOG_PROCESSORS', 'INFERENCERS', 'FUNCTIONS'):
    _parent = getattr(mmengine_registry, _name)
    Registry(
        _parent.name,
        parent=_parent,
        scope='mmkd_rl',
        locations=['mmkd_rl.registry'])

# Kinds of part that no OpenMMLab package has.
WEIGHTINGS = Registry(
    'weighting', scope='mmkd_rl', locations=['mmkd_rl.weighting'])
TASKS = Registry('task', scope='mmkd_rl', locations=['mmkd_rl.tasks'])
EXECUTORS = Registry(
    'executor', scope='mmkd_rl', locations=['mmkd_rl.teachers'])
REWARDS = Registry(
    'reward', scope='mmkd_rl', locations=['mmkd_rl.weighting.mtkd_rl'])
UPDATERS = Registry(
    'updater', scope='mmkd_rl', locations=['mmkd_rl.weighting.mtkd_rl'])


def build(registry: Registry, cfg: dict, key: str, **given: Any) -> Any:
    """Build a part from its config; errors name the user's key.

    Args:
        registry: Where ``cfg['type']`` is registered.
        cfg: The config of the part.
        key: Key of ``cfg`` in the config of the part that it belongs to.
        **given: Arguments that the user does not give.

    Raises:
        ConfigError: ``cfg`` is no dict with a ``type``, the type is not
            registered (the message names the nearest types), or options of
            the part or of its ``nested`` parts are wrong.
    """
    check_parts([(registry, cfg, key, given)])
    with under(key):
        part, options = look_up(registry, cfg)
        try:
            return part(**options, **given)
        except (TypeError, ValueError, AssertionError) as error:
            place = raised_at(error)
            if isinstance(error, ConfigError) or place is None or is_ours(
                    place[0]):
                raise
            # Of a class of another package, such as an optimiser.
            raise ConfigError('', f'{part.__name__}: {error}') from error


def build_nested(owner: Any, name: str, cfg: dict | None,
                 **given: Any) -> Any:
    """Build a part that is listed in ``nested`` of its owner's class.

    Args:
        owner: The part that it belongs to.
        name: The owner's option.
        cfg: The option's value. ``None`` or without a type: the default type.
        **given: Arguments that the user does not give.

    Raises:
        ConfigError: See :func:`build`.
    """
    registry, default, _ = owner.nested[name]
    return build(registry, {'type': default, **(cfg or {})}, name, **given)


def construct(part: Callable[..., Any], options: dict, key: str,
              **given: Any) -> Any:
    """Check the user's options and call a class with them.

    Args:
        part: The class, or a function.
        options: The user's arguments.
        key: Key of the options in the caller's config.
        **given: Arguments that the user does not give.

    Raises:
        ConfigError: See :func:`problems`; all problems in one message.
    """
    with under(key):
        check(part, options, given)
        return part(**options, **given)


def check_parts(parts: Iterable[tuple[Registry, dict, str, Iterable[str]]]
                ) -> None:
    """Check the configs of several parts before any of them is built.

    Args:
        parts: For each part its registry, config, key, and the names of
            arguments that the user does not give.

    Raises:
        ConfigError: A part has problems; the message has one line for each
            problem of each part.
    """
    found = [problem for part in parts for problem in _problems_of(*part)]
    if found:
        raise ConfigError.of(found)


def _problems_of(registry: Registry, cfg: dict, key: str,
                 given: Iterable[str] = ()) -> list[Problem]:
    """Problems of a part and of the parts in its options, see
    :attr:`Checked.nested`."""
    try:
        part, options = look_up(registry, cfg)
    except ConfigError as error:
        found = list(error.problems)
    else:
        found = problems(part, options, given)
        for name, (inner, default, of) in getattr(part, 'nested', {}).items():
            if isinstance(options.get(name), dict):
                found += _problems_of(
                    inner, {'type': default, **options[name]}, name, of)
    return [(below(key, name), text) for name, text in found]


def look_up(registry: Registry,
            cfg: dict) -> tuple[Callable[..., Any], dict]:
    """Return the class that a config names, and the config's options.

    Raises:
        ConfigError: See :func:`build`.
    """
    args = dict(cfg) if isinstance(cfg, dict) else {}
    kind = args.pop('type', None)
    if kind is None:
        raise ConfigError(f'must be a dict with a "type", got {cfg!r}')
    # MMEngine adds it to each dict of a base inherited as `package::path`.
    args.pop('_scope_', None)
    # Not by `registry.build`, which searches the default scope of the user's
    # config first, where our names are unknown.
    part = registry.get(kind) if isinstance(kind, str) else kind
    if not callable(part) and not isinstance(kind, str):
        raise ConfigError('type', 'must be the name of a registered '
                          f'{registry.name}, got {kind!r}')
    if part is None:
        names = sorted(registry.module_dict)
        near = difflib.get_close_matches(kind, names, n=3) or names
        raise ConfigError('type', f'{kind!r} is not a registered '
                          f'{registry.name}; did you mean one of {near}?')
    return part, args
