"""Registries of scope ``mmkd_rl``.

Those that MMEngine knows are children of MMEngine's, so that a config of any
OpenMMLab package can name our parts (``type='mmkd_rl.CifarResNet'``) and ours
can name theirs. The ones below them hold what only distillation has.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmkd_rl',
    locations=[
        'mmkd_rl.backbones', 'mmkd_rl.classifiers', 'mmkd_rl.distillers',
        'mmkd_rl.losses', 'mmkd_rl.taps'
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
REWARDS = Registry('reward', scope='mmkd_rl', locations=['mmkd_rl.agent'])
UPDATERS = Registry(
    'updater', scope='mmkd_rl', locations=['mmkd_rl.agent.updaters'])


def build(registry: Registry, cfg: dict, key: str, **kwargs: Any) -> Any:
    """Build a part from its config, complaining in the user's words.

    Args:
        registry: Where ``cfg['type']`` is registered.
        cfg: The config of the part.
        key: The key under which the user wrote it, for messages.
        **kwargs: Arguments that the user does not give.

    Raises:
        TypeError: ``cfg`` is no dict with a ``type``.
        ValueError: The type is not registered; the message names the nearest
            ones that are.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise TypeError(f'{key} must be a dict with a "type", got {cfg!r}')
    args = {**cfg, **kwargs}
    kind = args.pop('type')
    # Looked up here, not by `registry.build`: that would look in the default
    # scope of the user's config first, where our names are unknown.
    part = registry.get(kind) if isinstance(kind, str) else kind
    if part is None:
        names = sorted(registry.module_dict)
        near = difflib.get_close_matches(kind, names, n=3) or names
        raise ValueError(f'{key}.type={kind!r} is not a registered '
                         f'{registry.name}; did you mean one of {near}?')
    try:
        return part(**args)
    except TypeError as error:
        if 'unexpected keyword' not in str(error):
            raise
        takes = [p for p in inspect.signature(part).parameters
                 if p not in kwargs]
        raise TypeError(f'{key}: {error}; {part.__name__} takes {takes}'
                        ) from error
