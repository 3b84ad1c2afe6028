"""Starts a detector or a segmentor from a trained student's backbone."""

from __future__ import annotations

import copy
import inspect
import os
import re
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmkd_rl.export.trained import TrainedBackbone, read_trained
from mmkd_rl.recipes import fitting
from mmkd_rl.recipes.fitting import KEY
from mmkd_rl.recipes.levels import as_maps
from mmkd_rl.recipes.replacing import rename_class, replace
from mmkd_rl.recipes.widths import Setting, widths
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.configs import class_name, import_ours, load_config

#: Classes whose only difference is the stem.
_STEMS = ('ResNet', 'ResNetV1c', 'ResNetV1d')
#: Options that change what the same weights compute.
_COMPUTED = ('style', 'act_cfg', 'conv_cfg', 'last_pool')


def with_backbone(config: Config | str | os.PathLike,
                  source: str | os.PathLike) -> Config:
    """The config of a model that starts from a trained student's backbone.

    Sets ``init_cfg`` of the backbone and the normalisation. If the student's
    backbone is of a class that the config's toolbox does not have, it replaces
    the config's backbone, and the input widths of necks and heads are set. All
    changes are printed.

    Args:
        config: A training config of MMDetection, MMSegmentation or
            MMPretrain: a path, ``'package::path'``, or a Config. Of a
            distillation the student is changed.
        source: The ``work_dir`` of a student's training (the last checkpoint
            is used), a checkpoint, or an export of tools/export_student.py.

    Returns:
        A new config; ``config`` is not changed.

    Raises:
        ValueError: The backbones do not fit (another stem, depth or number of
            stages); the message has settings that fit. Or ``source`` is not a
            classifier's checkpoint.
        FileNotFoundError: No such config or checkpoint.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else \
        load_config(config)
    change = _set_students_backbone if _is_distiller(
        cfg.get('model')) else _set_backbone
    # MMEngine has no logger before the runner is built.
    print_log(f'{KEY} has set\n  ' + '\n  '.join(change(cfg, source)))
    return cfg


def _set_students_backbone(cfg: Config,
                           source: str | os.PathLike) -> list[str]:
    """As :func:`_set_backbone`, in the student of a distillation, which is
    changed like the model of a plain config."""
    distiller = cfg.model
    cfg._cfg_dict['model'] = _student_of(distiller)
    try:
        changes = _set_backbone(cfg, source)
    except ValueError as error:
        raise ValueError(_in_student(str(error))) from error
    distiller['student'] = cfg.model
    if 'data_preprocessor' in cfg.model:
        # For those who read the config: it is the student's, whatever the
        # config's is.
        distiller['data_preprocessor'] = cfg.model.pop('data_preprocessor')
    cfg._cfg_dict['model'] = distiller
    return [_in_student(change) for change in changes]


def _is_distiller(model: Any) -> bool:
    """Whether a model is a distillation.

    Raises:
        ValueError: Its student is not given by the config of its model.
    """
    if not isinstance(model, dict) or class_name(
            model.get('type')) != 'MultiTeacherDistiller':
        return False
    student = model.get('student')
    if not isinstance(student, dict) or 'type' not in student:
        raise ValueError(
            f"{KEY}: model.student must be the config of the student's model, "
            "dict(type=..., backbone=...), and not a path or a whole config; "
            f'got {student!r}')
    return True


def _student_of(distiller: dict) -> dict:
    """The config of a distillation's student, with the options that the
    distillation sets in its place, which are removed there."""
    student = distiller['student']
    if distiller.get('init_cfg') is not None:
        student['init_cfg'] = distiller.pop('init_cfg')
    preprocessor = distiller.pop('data_preprocessor', None)
    if student.get('data_preprocessor') is None and preprocessor is not None:
        student['data_preprocessor'] = preprocessor
    return student


def _in_student(text: str) -> str:
    """Names of a plain model's settings as those of a student's."""
    return re.sub(r'(?<![\w./-])model\.(?=(backbone|neck|\w*head|init_cfg|'
                  r'data_preprocessor)\b)', 'model.student.', text)


def _set_backbone(cfg: Config, source: str | os.PathLike) -> list[str]:
    """Set the backbone, in place; see :func:`with_backbone`.

    Returns:
        The changes, for the user.
    """
    model: Any = cfg.get('model')
    _check_plain(model)
    trained = read_trained(source, KEY)
    scope = cfg.get('default_scope')
    changes: list[str] = []
    problem = fitting.misfit(model['backbone'], trained, scope)
    if problem and _is_other_kind(model['backbone'], trained, scope):
        changes += replace(model, trained, scope)
        problem = fitting.misfit(model['backbone'], trained, scope)
    elif problem and _has_other_names(model['backbone'], trained):
        changes += rename_class(model, trained, scope)
        problem = fitting.misfit(model['backbone'], trained, scope)
    _check_fit(model, trained, scope, problem)
    if 'pretrained' in model:
        model['pretrained'] = None
    model['backbone'] = ConfigDict(
        fitting.with_start(model['backbone'], trained))
    if str(model['backbone']['type']).startswith('mmkd_rl.'):
        import_ours(cfg)
    changes.append(f'model.backbone.init_cfg.checkpoint={trained.path!r}')
    if news := fitting.new_layers(model['backbone'], trained, scope):
        changes.append(f'({news})')
    # These are loaded later, over the student's weights.
    if cfg.get('load_from') and not cfg.get('resume'):
        cfg.load_from = None
        changes.append('load_from=None')
    if isinstance(model.get('init_cfg'), dict) and \
            model['init_cfg'].get('type') == 'Pretrained':
        model['init_cfg'] = None
        changes.append('model.init_cfg=None')
    return changes + _normalize(cfg, trained)


def own_backbone(source: str | os.PathLike, toolbox: str) -> dict | None:
    """A config of a student's backbone for a toolbox, with its weights.

    Args:
        source: See :func:`with_backbone`.
        toolbox: ``'mmdet'`` or ``'mmseg'``.

    Returns:
        The config. Its type is the toolbox's own class if this reads all
        weights, otherwise MMPretrain's class. ``None`` if the file does not
        say which network it is of.

    Raises:
        ValueError, FileNotFoundError: See :func:`with_backbone`.
    """
    trained = read_trained(source, KEY)
    if trained.config is None:
        return None
    config = dict(trained.config)
    own = fitting.name_in(class_name(config['type']), config['type'], toolbox)
    with_own = fitting.accepted({**config, 'type': own}, toolbox)
    if len(with_own) == len(config) and not fitting.misfit(
            with_own, trained, toolbox):
        config = with_own
    config = as_maps(config, toolbox, for_detector=toolbox == 'mmdet')
    return fitting.with_start({'type': config['type'], **config}, trained)


def _check_plain(model: Any) -> None:
    """Refuse a model whose backbone is not at ``model.backbone``.

    Raises:
        ValueError: The backbone is inside another model, such as that of a
            distillation, or has teachers itself (Knowledge Flow).
    """
    where = 'model'
    while isinstance(model, dict) and 'backbone' not in model:
        name = next((n for n in ('student', 'detector', 'segmentor', 'model')
                     if isinstance(model.get(n), dict)), None)
        if name is None:
            raise ValueError(f"{KEY}: the config's model has no backbone")
        model, where = model[name], f'{where}.{name}'
    backbone = model.get('backbone') if isinstance(model, dict) else None
    if not isinstance(backbone, dict):
        raise ValueError(f"{KEY}: the config's model has no backbone")
    if class_name(backbone['type']) == 'KnowledgeFlowBackbone':
        where, backbone = f'{where}.backbone', backbone.get('student', {})
    elif where == 'model':
        return
    raise ValueError(
        f'{KEY} sets model.backbone, and the backbone of this config is '
        f'{where}.{"student" if where.endswith("backbone") else "backbone"}; '
        'write the result of mmkd_rl.with_backbone(CONFIG, RUN) for the plain '
        'config to a file (.dump(FILE)), and wrap that one')


def _is_other_kind(backbone: dict, trained: TrainedBackbone,
                   scope: str | None) -> bool:
    """Whether the student's backbone is of another class than the config's,
    and not only with another stem."""
    if trained.config is None:
        return False
    network = fitting.outline(backbone, scope)
    if not fitting.name_misfit(network, trained) and fitting.new_layers(
            backbone, trained, scope):
        # It has layers beyond the student's, which would be lost.
        return False
    ours, theirs = trained.config['type'], backbone['type']
    if class_name(ours) in _STEMS and class_name(theirs) in _STEMS:
        return False
    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.get(ours) is not registry.get(theirs)


def _has_other_names(backbone: dict, trained: TrainedBackbone) -> bool:
    """Whether config and student have the same deep stem: a toolbox's
    ResNetV1c or V1d has other names of weights than MMPretrain's."""
    return trained.config is not None and class_name(
        backbone['type']) == class_name(trained.config['type']) in _STEMS[1:]


def _check_fit(model: dict, trained: TrainedBackbone, scope: str | None,
               problem: str) -> None:
    """Refuse weights that do not fit the model's backbone.

    Args:
        model: Config of the model.
        trained: The weights.
        scope: Package in which types are looked up.
        problem: See :func:`fitting.misfit`.

    Raises:
        ValueError: There is a problem, or strides differ at the same weights.
    """
    backbone = model['backbone']
    if problem:
        raise ValueError(
            f'{KEY}={trained.path!r} does not fit model.backbone '
            f'({fitting.in_words(backbone)}): {problem}' +
            _advice(model, trained, scope))
    student = trained.config
    if student is None or class_name(backbone['type']) != class_name(
            student['type']):
        return
    for name in _COMPUTED:
        ours, theirs = (fitting.option(config, name, scope)
                        for config in (student, backbone))
        if ours != theirs and inspect.Parameter.empty not in (ours, theirs):
            raise ValueError(
                f'{KEY}: model.backbone.{name}={theirs!r}, and the student '
                f'was trained with {ours!r}, so the same weights compute '
                'something else; set --cfg-options '
                f'{Setting(f"backbone.{name}", ours)}')


def _advice(model: dict, trained: TrainedBackbone,
            scope: str | None) -> str:
    """Settings with which the weights fit, for the end of a message."""
    student, backbone = trained.config, model['backbone']
    if not fitting.name_misfit(fitting.outline(backbone, scope), trained):
        return ', because its class reads files in a way of its own'
    if student is None:
        return (". The file does not say which network it is of; give the "
                "run's own checkpoint, or set model.backbone to it")
    wanted = {k: v for k, v in student.items()
              if k not in fitting.TRAINING_OPTIONS and backbone.get(k) != v}
    ours = class_name(student['type'])
    if ours != class_name(backbone['type']):
        # These networks are the same in the three toolboxes.
        wanted = {'type': fitting.name_in(ours, student['type'], scope),
                  **wanted}
    if not wanted:
        return f'. The student is {fitting.in_words(student)}'
    settings = [Setting(f'backbone.{k}', v) for k, v in wanted.items()]
    settings += widths(model, {**backbone, **wanted}, scope)
    return (f'. The student is {fitting.in_words(student)}; this fits: '
            '--cfg-options ' + ' '.join(map(str, settings)))


def _normalize(cfg: Config, trained: TrainedBackbone) -> list[str]:
    """Set the student's normalisation in a config.

    Returns:
        The changes, for the user.
    """
    student, own = trained.preprocessor, cfg.model.get('data_preprocessor')
    if not isinstance(own, dict):
        own = cfg.get('data_preprocessor')
    if own is None:
        return ["nothing for the student's normalisation, because the model "
                'has no data_preprocessor']
    if not student or student.get('mean') is None:
        return ['nothing in model.data_preprocessor: the file does not say '
                'how its images were normalised']
    swap = bool(student.get('to_rgb', student.get('bgr_to_rgb', False)))
    kind = own.get('type') or cfg.model.get('type')
    name = 'to_rgb' if class_name(kind) in (
        'ClsDataPreprocessor', 'ImageClassifier') else 'bgr_to_rgb'
    new = {'mean': list(student['mean']), 'std': list(student['std']),
           name: swap}
    changed = {k: v for k, v in new.items() if own.get(k) != v}
    own.update(new)
    return [f'model.data_preprocessor.{k}={v}' for k, v in changed.items()]
