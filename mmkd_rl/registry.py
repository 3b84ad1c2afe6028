"""Registries of scope ``mmkd_rl``.

Those that MMEngine knows are children of MMEngine's, so that a config of any
OpenMMLab package can name our parts (``type='mmkd_rl.CifarResNet'``) and ours
can name theirs. The ones below them hold what only distillation has.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
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
        TypeError: ``cfg`` is no dict with a ``type``, or see
            :func:`construct`.
        ValueError: The type is not registered; the message names the nearest
            ones that are.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise TypeError(f'{key} must be a dict with a "type", got {cfg!r}')
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
        raise ValueError(f'{key}.type={kind!r} is not a registered '
                         f'{registry.name}; did you mean one of {near}?')
    return construct(part, args, key, **kwargs)


def construct(part: Callable[..., Any], options: dict, key: str,
              **given: Any) -> Any:
    """Call a class with what the user wrote.

    Args:
        part: The class, or a function.
        options: The user's arguments.
        key: The key under which they stand, for messages.
        **given: Arguments that the user does not give.

    Raises:
        TypeError: ``options`` is no dict, or see :func:`refuse_unknown`.
    """
    if not isinstance(options, dict):
        raise TypeError(f'{key} must be a dict, got {options!r}')
    takes = option_names(part)
    if takes is not None:
        takes = [name for name in takes if name not in given]
        refuse_unknown([o for o in options if o not in takes], key,
                       part.__name__, takes)
    elif '_delete_' in options:
        refuse_unknown(['_delete_'], key, part.__name__, [])
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
        raise TypeError(f'{key}: {error}') from error


def _is_call_here(error: BaseException) -> bool:
    """Whether the call in :func:`construct` failed, not one within it."""
    place = raised_at(error)
    return place is not None and place[0].name == 'construct'


def refuse_unknown(unknown: Iterable[str], key: str, name: str,
                   takes: Sequence[str]) -> None:
    """Complain of options that a part does not have.

    Args:
        unknown: Names of options that the part does not accept.
        key: The key under which the options stand.
        name: The part's name.
        takes: Names of the options that the part accepts.

    Raises:
        TypeError: ``unknown`` is not empty. The message lists the valid
            options and the closest match.
    """
    unknown = list(unknown)
    if '_delete_' in unknown:
        raise TypeError(
            f'{key} has _delete_: `_delete_=True` in {key} replaces a key of '
            'a base config, and no base has it: remove it')
    if not unknown:
        return
    near = {
        o: difflib.get_close_matches(o, takes, n=1, cutoff=0.6)
        for o in unknown
    }
    hints = [f'did you mean {n[0]!r}?' for n in near.values() if n]
    raise TypeError(f'{key}: {name} has no option '
                    f'{", ".join(map(repr, unknown))}; it takes '
                    f'{list(takes)}' + '; '.join(['', *hints]))


def option_names(part: Callable[..., Any]) -> list[str] | None:
    """The arguments that a class or a function takes, those that it hands on
    to its base classes included; ``None``: any, or not to be found out.

    A base's argument that only its subclasses set is named in the attribute
    ``not_options`` of the class.
    """
    names: dict[str, None] = {}
    chain = [
        vars(c)['__init__'] for c in inspect.getmro(part)
        if '__init__' in vars(c)
    ] if inspect.isclass(part) else [part]
    for call in chain:
        try:
            parameters = list(inspect.signature(call).parameters.values())
        except (TypeError, ValueError):
            return None
        if call is not part:
            parameters = parameters[1:]
        names.update({
            p.name: None
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        })
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            hidden = getattr(part, 'not_options', ())
            return [name for name in names if name not in hidden]
    return None
