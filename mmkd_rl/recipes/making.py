"""Makes the config of a distillation from a plain training config."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmkd_rl.engine.hooks import LearnerHook
from mmkd_rl.options import option_names
from mmkd_rl.recipes.reading import (
    EXAMPLE,
    MODEL_KEYS,
    TEACHER,
    default_terms,
    parse_teacher,
    read_pool,
    read_strategy,
    split_names,
)
from mmkd_rl.recipes.storing import store_outputs
from mmkd_rl.recipes.tasks import (
    choose_task,
    kind_of,
    share_scores,
    teacher_model,
)
from mmkd_rl.registry import HOOKS, MODELS, WEIGHTINGS, construct
from mmkd_rl.teachers.loading import check_teachers
from mmkd_rl.utils.configs import (
    class_name,
    complete_loaders,
    config_name,
    import_ours,
    load_config,
)

DISTILLER = 'mmkd_rl.MultiTeacherDistiller'
#: Largest side of images with which networks with maps are tried, in pixels.
_LARGE = 512
#: Hooks of every distillation: check of the teachers, exact resuming, export.
_COMMON_HOOKS = ('TeacherCheckHook', 'RandomStateHook', 'StudentExportHook')


def distill(config: Config | str | os.PathLike,
            strategy: str = 'mtkd_rl',
            teachers: Sequence[dict | str] = (),
            *,
            pool: str | os.PathLike | None = None,
            terms: Sequence[dict] | None = None,
            stored: Mapping[str, Any] | str | os.PathLike | None = None,
            **options: Any) -> Config:
    """Make the config of a distillation from a plain training config.

    The config's data, schedule and hooks stay. Its model becomes the student
    of a :class:`MultiTeacherDistiller`; hooks that the strategy and the terms
    need are added.

    Args:
        config: A training config of MMPretrain, MMDetection or
            MMSegmentation: a path, ``'package::path'``, or a Config. Models
            without scores of classes for images or pixels are distilled by
            their features, see :func:`choose_task`.
        strategy: A name from ``configs/_base_/strategies`` (``'mtkd_rl'``,
            ``'aver'``, ``'ca_mkd'``, ``'knowledge_flow'``, ...); the file of
            a strategy; or the type of a registered
            :class:`WeightingStrategy`. ``'mtkd_rl+knowledge_flow'`` joins
            both methods.
        teachers: Dicts as :class:`TeacherPool` takes them, or strings
            ``'NAME=CONFIG:CHECKPOINT'``.
        pool: A config with a list ``teachers``, a path or a name from
            ``configs/_base_/pools``; its teachers come first.
            ``'NAME:2'``: only the first two teachers; ``'NAME:r50,r101'``:
            only those with these names.
        terms: Configs of all distillation terms, in place of the strategy's.
        stored: Folder in which teachers' outputs are kept and read again, or
            a dict with this ``folder``, ``views`` and ``repeats`` of
            :func:`store_outputs` and options of :class:`StoredExecutor`.
        **options: Other options of the :class:`MultiTeacherDistiller`:
            ``taps``, ``projector``, ``task``, ``probe_size``.

    Returns:
        A new config; ``config`` is not changed.

    Raises:
        ValueError: The strategy is unknown, a teacher has another form, two
            teachers have the same name, there are no teachers, the pool has
            no teacher of a given name, or the config is distilled already.
        TypeError: A teacher that is neither a dict nor a string.
        FileNotFoundError: No such config, or no such pool.
    """
    if not isinstance(config, (Config, str, os.PathLike)):
        raise TypeError('config must be a path, "package::path" or a Config, '
                        f'got {config!r}')
    cfg = copy.deepcopy(config) if isinstance(config, Config) else \
        load_config(config)
    _check_complete(cfg)
    parts = [read_strategy(name) for name in split_names(strategy)]
    if not isinstance(teachers, (list, tuple)):
        raise TypeError(f'teachers must be a list of dicts or {TEACHER!r}, '
                        f'got {teachers!r}')
    if terms is not None and not (isinstance(terms, (list, tuple)) and all(
            isinstance(term, dict) for term in terms)):
        raise TypeError("terms must be a list such as [dict(type='KDLoss', "
                        f"temperature=2.)], got {terms!r}")
    found = [parse_teacher(t) for t in (*read_pool(pool), *teachers)]
    if not found:
        raise ValueError(f'there are no teachers; give some as {TEACHER}, '
                         f'such as {EXAMPLE}, or a pool')
    check_teachers(found, set().union(*found))
    distillers = [p for p in parts if 'weighting' in p]
    flows = [p for p in parts if 'weighting' not in p]
    if len(distillers) > 1 or len(flows) > 1:
        raise ValueError(f'strategy {strategy!r} names two strategies of the '
                         'same kind; only one strategy that weighs teachers '
                         'can be combined with Knowledge Flow, such as '
                         'mtkd_rl+knowledge_flow')
    if flows:
        _add_flow(cfg, 'distiller' if distillers else found)
    if distillers:
        _add_distiller(cfg, distillers[0], found, terms, options)
    elif terms or options:
        raise ValueError(
            f'strategy {strategy!r} has no distillation losses, so it takes '
            f'no terms and no {sorted(options) or "other options"}; combine '
            f'it with a strategy that has, such as mtkd_rl+{strategy}')
    _add_hooks(cfg, parts)
    import_ours(cfg)
    complete_loaders(cfg)
    if stored is not None:
        if not distillers:
            raise ValueError(f'strategy {strategy!r} has no distillation, '
                             'whose outputs could be stored')
        construct(store_outputs, dict(
            stored if isinstance(stored, Mapping) else dict(folder=stored)),
            'stored', cfg=cfg)
    _name(cfg, config, strategy)
    return cfg


def _check_complete(cfg: Config) -> None:
    """Raise ValueError where a config cannot be distilled."""
    model = cfg.get('model')
    if not isinstance(model, dict) or 'type' not in model:
        raise ValueError('config has no "model = dict(type=...)"; is it one '
                         'of the files under _base_?')
    lacking = [key for key in ('train_dataloader', 'train_cfg',
                               'optim_wrapper') if not cfg.get(key)]
    if lacking:
        raise ValueError(f'config has no {" and no ".join(lacking)}; give a '
                         'complete training config')
    if class_name(model['type']) == 'MultiTeacherDistiller':
        raise ValueError(
            'config is distilled already (model.type is '
            'MultiTeacherDistiller); train it as it is, or give the config of '
            'its student')


def _add_distiller(cfg: Config, strategy: dict, teachers: list[dict],
                   terms: Sequence[dict] | None, options: dict) -> None:
    student = cfg.model
    made: dict[str, Any] = dict(type=DISTILLER, student=student,
                                teachers=teachers)
    made.update({k: copy.deepcopy(strategy[k])
                 for k in MODEL_KEYS if k in strategy})
    if terms is not None:
        made.pop('logit_loss', None)
        made.pop('feature_loss', None)
        made['losses'] = [dict(term) for term in terms]
    scope, options = cfg.get('default_scope'), dict(options)
    task: dict = options.pop('task', None) or choose_task(
        student, scope, teachers) or {}
    kind = class_name(task.get('type'))
    if kind == 'FeatureTask' and kind_of(student, scope) == 'segmentor':
        # Backbones have different numbers of levels.
        task = {'levels': 'last', **task}
    elif kind == 'DetectionTask' and 'scores' not in task:
        task = {**task, 'scores': share_scores(student, scope, teachers)}
    if task:
        made['task'] = task
    has_map = kind == 'SegmentationTask' or \
        kind == 'FeatureTask' and 'levels' in task
    if 'losses' not in {**made, **options}:
        if has_map:
            _dense_terms(made)
        elif kind == 'DetectionTask':
            _detection_terms(made)
    made.update(options)
    if kind == 'FeatureTask':
        _without_logits(made)
    if kind == 'DetectionTask' and not made['task'].get('scores'):
        _without_class_maps(made)
    if kind in ('FeatureTask', 'DetectionTask'):
        _reward_from_gradients(made)
    # Detectors' images are large, and they take any size.
    if (kind not in ('FeatureTask', 'DetectionTask') or has_map) and (
            size := _probe_size(cfg, teachers, has_map)) is not None:
        made.setdefault('probe_size', size)
    if kind in ('SegmentationTask', 'DetectionTask') and class_name(
            made['weighting'].get('type')) == 'CAMKD':
        # Decode heads read several maps, so most cannot run on the mapped one.
        made['weighting'].setdefault('feature', 'teacher')
    cfg._cfg_dict['model'] = ConfigDict(made)


def _dense_terms(made: dict) -> None:
    """Replace the strategies' default terms, which are those of classifiers,
    by those of segmentors, see docs/segmentation.md: channel-wise distillation
    of the scores, or features where there are none. A strategy's own stay."""
    plain = default_terms()
    is_kd, is_fitnet = (made.get(key, plain[key]) == plain[key]
                        for key in ('logit_loss', 'feature_loss'))
    has_scores = class_name(made['task']['type']) == 'SegmentationTask'
    if is_kd and has_scores:
        made['logit_loss'] = dict(type='mmkd_rl.CWDLogitLoss')
    if is_kd and is_fitnet and has_scores:
        made['feature_loss'] = None
    elif is_fitnet:
        made['feature_loss'] = {
            **plain['feature_loss'], 'loss_weight': 'auto', 'ratio': 10.,
            'standardize': True}


def _detection_terms(made: dict) -> None:
    """Replace the strategies' default terms, which are those of classifiers,
    by those of detectors, see docs/detection.md. A strategy's own stay."""
    plain = default_terms()
    is_kd, is_fitnet = (made.get(key, plain[key]) == plain[key]
                        for key in ('logit_loss', 'feature_loss'))
    if not made['task'].get('scores'):
        made['logit_loss'] = None
    elif is_kd:
        made['logit_loss'] = dict(type='mmkd_rl.BinaryKDLoss')
    if is_fitnet:
        made['feature_loss'] = dict(type='mmkd_rl.FGDLoss')


def _without_class_maps(made: dict) -> None:
    """Remove the teachers' class maps where features alone are distilled."""
    for teacher in made['teachers']:
        if teacher.pop('class_map', None) is not None:
            print_log(f'teacher {teacher["name"]!r}: its class_map has no '
                      'effect on features, and is left out')


def _without_logits(made: dict) -> None:
    """With :class:`FeatureTask`, leave out the default term that needs class
    scores."""
    if 'losses' not in made:
        made['logit_loss'] = None


def _reward_from_gradients(made: dict) -> None:
    """Set the agent's reward where there are no scores for a softmax."""
    weighting = made.get('weighting', {})
    if class_name(weighting.get('type')) == 'MTKDRL' and \
            'reward' not in weighting:
        weighting['reward'] = dict(type='GradientReward')
        # There is no logger yet.
        print_log("there are no scores for a softmax, so the agent's reward "
                  'is GradientReward')


def _add_flow(cfg: Config, teachers: list[dict] | str) -> None:
    backbone = cfg.model.get('backbone')
    if not isinstance(backbone, dict):
        raise ValueError(
            "Knowledge Flow wraps model.backbone, but the config's model "
            f'({cfg.model.type}) has no backbone')
    if class_name(backbone.get('type')) == 'KnowledgeFlowBackbone':
        raise ValueError('model.backbone is a KnowledgeFlowBackbone already')
    cfg.model.backbone = ConfigDict(
        type='mmkd_rl.KnowledgeFlowBackbone', student=backbone,
        teachers=teachers)


def _add_hooks(cfg: Config, parts: Iterable[dict]) -> None:
    """Add the hooks that strategies and terms need and the config lacks."""
    ours: list[dict] = []
    for part in parts:
        ours += part.get('custom_hooks', ())
    for kind, options in _kinds(cfg.model):
        ours += kind.needed_hooks(options)
    ours += [dict(type=f'mmkd_rl.{name}') for name in _COMMON_HOOKS
             if name != 'TeacherCheckHook' or
             cfg.model.type == DISTILLER]
    hooks = list(cfg.get('custom_hooks') or ())
    present = {class_name(hook.get('type')) for hook in (
        *hooks, *filter(None, cfg.get('default_hooks', {}).values()))}
    for hook in ours:
        if class_name(hook['type']) not in present:
            present.add(class_name(hook['type']))
            hooks.append(_for_loop(cfg, dict(hook)))
    cfg.custom_hooks = hooks


def _kinds(model: dict) -> list[tuple[Any, dict]]:
    """Classes and configs of a distiller's strategy and terms. Types that are
    not registered are left out; the model's builder refuses them."""
    if model.get('type') != DISTILLER:
        return []
    terms = model.get('losses') or [model.get('logit_loss'),
                                    model.get('feature_loss')]
    found = [(WEIGHTINGS, model.get('weighting')),
             *((MODELS, term) for term in terms)]
    kinds = [(registry.get(class_name(cfg.get('type'))), cfg)
             for registry, cfg in found if isinstance(cfg, dict)]
    return [(kind, cfg) for kind, cfg in kinds
            if hasattr(kind, 'needed_hooks')]


def _for_loop(cfg: Config, hook: dict) -> dict:
    """Let a learner's hook count iterations if the training loop does."""
    loop = cfg.get('train_cfg') or {}
    if 'IterBased' not in str(loop.get('type')) and \
            loop.get('by_epoch') is not False:
        return hook
    kind = HOOKS.get(class_name(hook['type']))
    if kind is not None and issubclass(kind, LearnerHook) and \
            'by_epoch' in (option_names(kind) or ()) and \
            hook.get('by_epoch', True):
        # A hundredth of the training, like one epoch of a hundred.
        length = max(1, int(loop.get('max_iters', 100)) // 100)
        hook.update(warmup=length, interval=length, by_epoch=False)
    return hook


def _probe_size(cfg: Config, teachers: Sequence[dict],
                has_map: bool) -> int | tuple[int, int] | None:
    """Size of the images with which the networks are tried, limited where maps
    are distilled; ``None``: that of the builder."""
    size = image_size(cfg)
    model = cfg.model.get('student', cfg.model)
    if has_map and size is not None:
        configs = [model, *(teacher_model(t)[0] for t in teachers)]
        if not any((c.get('backbone') or {}).get('img_size')
                   for c in configs):
            # Convolutions take any size, and large images take long.
            size = min(size, _LARGE) if isinstance(size, int) else (
                min(size[0], _LARGE), min(size[1], _LARGE))
    return size


def image_size(cfg: Config) -> int | tuple[int, int] | None:
    """Size of the training images after the pipeline's last crop or resize,
    one number or (height, width); ``None``: unknown."""
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and isinstance(
            dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    for step in reversed(dataset.get('pipeline') or ()):
        kind = class_name(step.get('type'))
        size = step.get('crop_size') if kind in ('RandomCrop', 'CenterCrop') \
            else step.get('scale') if kind in ('RandomResizedCrop', 'Resize',
                                               'EfficientNetRandomCrop') \
            else None
        if isinstance(size, int):
            return size
        if isinstance(size, (list, tuple)) and len(size) == 2 and all(
                isinstance(n, int) and n > 0 for n in size):
            # These two are MMCV's, which has the width first.
            return (size[1], size[0]) if kind in (
                'Resize', 'CenterCrop') else (size[0], size[1])
    return None


def _name(cfg: Config, config: Any, strategy: str) -> None:
    """Name the new config and its work directory after the config and the
    strategy."""
    given = cfg.filename if isinstance(config, Config) else os.fspath(config)
    name = f'{config_name(given or "student")}_' + re.sub(
        r'\W+', '-', config_name(strategy))
    object.__setattr__(cfg, '_filename', f'{name}.py')
    if cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', name)
