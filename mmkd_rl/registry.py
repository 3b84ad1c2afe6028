"""Registries of scope ``mmkd_rl``.

Those that MMEngine knows are children of MMEngine's, so that a config of any
OpenMMLab package can name our parts (``type='mmkd_rl.CifarResNet'``) and ours
can name theirs. The ones below them hold what only distillation has.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from mmkd_rl.errors import is_fault, raised_at
from mmkd_rl.options import ConfigError, problems

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
for _name in ('RUNNERS', 'RUNNER_CONSTRUCTORS', 'LOOPS', 'DATA_SAMPLERS',
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


def build(registry: Registry, cfg: dict, key: str, **kwargs: Any) -> Any:
    """Build a part from its config, complaining in the user's words.

    Args:
        registry: Where ``cfg['type']`` is registered.
        cfg: The config of the part.
        key: The key under which the user wrote it, for messages.
        **kwargs: Arguments that the user does not give.

    Raises:
        ConfigError: ``cfg`` is no dict with a ``type``, or the type is not
            registered (the message names the nearest ones that are), or see
            :func:`construct`.
    """
    check_parts([(registry, cfg, key, kwargs)])
    part, options = look_up(registry, cfg, key)
    return _call(part, options, key, kwargs)


def check_parts(parts: Iterable[tuple[Registry, dict, str, Iterable[str]]]
                ) -> None:
    """Check the configs of several parts before any of them is built.

    Args:
        parts: Of each: where its type is registered, its config, its key, and
            names of arguments that the user does not give.

    Raises:
        ConfigError: All problems of all parts, a line each.
    """
    found = [text for part in parts for text in _problems_of(*part)]
    if found:
        raise ConfigError('\n'.join(found))


def _problems_of(registry: Registry, cfg: dict, key: str,
                 given: Iterable[str] = ()) -> list[str]:
    """Of a part, and of the parts in its options: a class names those in
    ``nested``, with their registry, the type that is meant if the config says
    none, and what the user does not give."""
    try:
        part, options = look_up(registry, cfg, key)
    except ConfigError as error:
        return [str(error)]
    found = problems(part, options, key, given)
    nested = getattr(part, 'nested', {})
    for name, (inner, default, inner_given) in nested.items():
        if isinstance(options.get(name), dict):
            found += _problems_of(inner, {'type': default, **options[name]},
                                  f'{key}.{name}', inner_given)
    return found


def look_up(registry: Registry, cfg: dict,
            key: str) -> tuple[Callable[..., Any], dict]:
    """The class that a config names, and the options in it.

    Raises:
        ConfigError: See :func:`build`.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ConfigError(f'{key} must be a dict with a "type", got {cfg!r}')
    args = dict(cfg)
    kind = args.pop('type')
    # MMEngine's, in each dict of a base that is inherited as `package::path`.
    args.pop('_scope_', None)
    # Looked up here, not by `registry.build`: that would look in the default
    # scope of the user's config first, where our names are unknown.
    part = registry.get(kind) if isinstance(kind, str) else kind
    if part is None:
        names = sorted(registry.module_dict)
        near = difflib.get_close_matches(kind, names, n=3) or names
        raise ConfigError(f'{key}.type={kind!r} is not a registered '
                          f'{registry.name}; did you mean one of {near}?')
    return part, args


def construct(part: Callable[..., Any], options: dict, key: str,
              **given: Any) -> Any:
    """Call a class with what the user wrote.

    Args:
        part: The class, or a function.
        options: The user's arguments.
        key: The key under which they stand, for messages.
        **given: Arguments that the user does not give.

    Raises:
        ConfigError: ``options`` is no dict, or see :func:`problems`; all
            problems in one message.
    """
    if not isinstance(options, dict):
        raise ConfigError(f'{key} must be a dict, got {options!r}')
    found = problems(part, options, key, given)
    if found:
        raise ConfigError('\n'.join(found))
    return _call(part, options, key, given)


def _call(part: Callable[..., Any], options: dict, key: str,
          given: dict) -> Any:
    """Call a class with options that were checked, and name the key in its
    own complaints."""
    try:
        return part(**options, **given)
    except (TypeError, ValueError) as error:
        parent, _, own = key.rpartition('.')
        if parent and str(error).startswith(f'{own}.'):
            # A part names its options from its own key on.
            raise type(error)(f'{parent}.{error}') from error
        if 'unexpected keyword' not in str(error) or (
                is_fault(error) and not _is_call_here(error)):
            raise
        raise ConfigError(f'{key}: {error}') from error


def _is_call_here(error: BaseException) -> bool:
    """Whether the call in :func:`_call` failed, not one within the part."""
    place = raised_at(error)
    return place is not None and place[0].name == '_call'
