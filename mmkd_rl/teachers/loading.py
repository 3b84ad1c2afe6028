"""Reads a teacher's config and checkpoint and builds its network."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.errors import is_fault
from mmkd_rl.export.student import plain_student
from mmkd_rl.registry import MODELS
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.configs import class_name, file_of, require_package
from mmkd_rl.utils.state_dicts import check_values, named_as, read_weights

#: Value of ``checkpoint`` for a teacher with random weights.
UNTRAINED = 'untrained'


def check_teachers(teachers: Sequence[dict],
                   keys: Collection[str]) -> tuple[str, ...]:
    """Check the user's list of teachers and return their names.

    Args:
        teachers: The user's list.
        keys: Valid keys of a teacher's dict.

    Raises:
        TypeError: A teacher is no dict.
        ValueError: No list, an unknown key, no name or the same one twice.
    """
    if not isinstance(teachers, (list, tuple)) or not teachers:
        raise ValueError(
            f'teachers must be a list of at least one, got {teachers!r}; '
            "write teachers=[dict(name='a', config='a.py', "
            "checkpoint='a.pth')]")
    names = [_name(cfg, i, keys) for i, cfg in enumerate(teachers)]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(
                f'teachers[{i}].name={name!r} is taken by '
                f'teachers[{names.index(name)}]; names must differ')
    return tuple(names)


def _name(cfg: dict, index: int, keys: Collection[str]) -> str:
    if not isinstance(cfg, dict):
        raise TypeError(f'teachers[{index}] must be a dict, got {cfg!r}')
    if unknown := set(cfg) - set(keys):
        raise ValueError(f'teachers[{index}] has unknown {sorted(unknown)}; '
                         f'it takes {sorted(keys)}')
    name = cfg.get('name')
    if not isinstance(name, str) or not name or '/' in name:
        raise ValueError(f'teachers[{index}].name must be a word without "/", '
                         f'got {name!r}')
    return name


def load_model_config(config: str | dict,
                      key: str,
                      keep_flow: bool = False) -> tuple[dict, str | None]:
    """Read a model's config.

    Args:
        config: A path, a name in an installed package
            (``'mmpretrain::resnet/resnet18_8xb32_in1k.py'``), a whole config
            or a model's config as a dict. Of the config of a distillation the
            student is taken.
        key: Config key of ``config``, for messages.
        keep_flow: Keep a KnowledgeFlowBackbone; otherwise it is replaced by
            its student's backbone.

    Returns:
        The model's config, including the preprocessor that MMPretrain's
        configs have outside of the model, and the scope in which its types are
        looked up (``None``: the config has none).

    Raises:
        FileNotFoundError: No such config.
        TypeError: ``config`` is neither a string nor a dict.
        ValueError: The config has no model.
    """
    if isinstance(config, str):
        if '::' in config:
            require_package(config, key)
        file = file_of(config) if '::' in config else Path(config)
        if not file.is_file():
            raise FileNotFoundError(
                f'{key}={config!r}: no such config (from {os.getcwd()})')
        try:
            cfg: Any = Config.fromfile(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{key}={config!r}: a base is missing: {error}') from error
        except (ModuleNotFoundError, ImportError) as error:
            raise ValueError(f'{key}={config!r}: {error}') from error
        cfg = cfg.to_dict()
    elif isinstance(config, dict):
        cfg = Config(dict(config)).to_dict()
    else:
        raise TypeError(f'{key} must be a path, "package::path" or a dict, '
                        f'got {config!r}')
    scope = cfg.get('default_scope')
    model = cfg if 'type' in cfg else cfg.get('model')
    if not isinstance(model, dict) or 'type' not in model:
        raise ValueError(f'{key}={config!r} has no model; give a config with '
                         '"model = dict(type=...)" or such a dict')
    preprocessor = model.get('data_preprocessor',
                             cfg.get('data_preprocessor'))
    if class_name(model['type']) == 'MultiTeacherDistiller':
        # The student may be a dict, a path or a name.
        model, inner = load_model_config(model['student'], f'{key}: student',
                                         keep_flow=True)
        # As in the builder: the student's own comes first.
        preprocessor = model.get('data_preprocessor') or preprocessor
        scope = inner or scope
    model = dict(model)
    backbone = model.get('backbone')
    if not keep_flow and isinstance(backbone, dict) and class_name(
            backbone.get('type')) == 'KnowledgeFlowBackbone':
        model['backbone'] = backbone['student']
    if preprocessor is not None:
        model['data_preprocessor'] = preprocessor
    return model, scope


def build_network(cfg: dict, scope: str | None, key: str) -> nn.Module:
    """Build a network of any OpenMMLab package without initialising weights.

    Args:
        cfg: The model's config.
        scope: Package in which types without a prefix are looked up.
        key: Config key of ``cfg``, for messages.

    Raises:
        ValueError: A type is not registered.
        TypeError: A part does not have an option.
    """
    try:
        with MODELS.switch_scope_and_registry(scope) as registry:
            # MMDetection reads options as attributes (train_cfg.rpn).
            return registry.build(ConfigDict(cfg))
    except (KeyError, TypeError) as error:
        if is_fault(error):
            raise
        if isinstance(error, TypeError):
            raise TypeError(f'{key}: {error}') from error
        raise ValueError(f'{key}: {error.args[0] if error.args else error}'
                         ) from error


def offline(cfg: dict) -> dict:
    """Remove pretrained weights, which would be downloaded, from a config."""
    cfg = {k: v for k, v in cfg.items() if k != 'init_cfg'}
    if 'pretrained' in cfg:
        # A file or URL (MMSegmentation, MMDetection), or a bool (timm).
        cfg['pretrained'] = False if isinstance(cfg['pretrained'],
                                                bool) else None
    if isinstance(cfg.get('backbone'), dict):
        cfg['backbone'] = offline(cfg['backbone'])
    return cfg


def input_size(cfg: dict, key: str) -> tuple[int, int] | None:
    """``input_size`` of a teacher as (H, W); ``None``: any size.

    Raises:
        ValueError: The value is neither a side nor a pair.
    """
    size = cfg.get('input_size')
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if len(pair) != 2 or not all(
            isinstance(n, int) and n >= 1 for n in pair):
        raise ValueError(f'{key}: input_size must be a side or (H, W) in '
                         f'pixels, got {size!r}')
    return pair


def input_scale(cfg: dict, key: str) -> float:
    """``input_scale`` of a teacher: 2: images of twice the student's width and
    height.

    Raises:
        ValueError: The value is no positive number, or there is an
            ``input_size``, too.
    """
    scale = cfg.get('input_scale', 1.)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or \
            not 0 < scale < math.inf:
        raise ValueError(f'{key}: input_scale must be a factor > 0, such as '
                         f'1.5, got {scale!r}')
    if scale != 1 and cfg.get('input_size') is not None:
        raise ValueError(f'{key}: input_size={cfg["input_size"]!r} and '
                         f'input_scale={scale!r} exclude each other')
    return float(scale)


def read_checkpoint(path: str, key: str) -> dict[str, Tensor]:
    """Read the weights in a checkpoint file, see :func:`weights_in`."""
    return weights_in(checkpoint_io.load(path, key), path, key)


def weights_in(content: Any, path: str, key: str) -> dict[str, Tensor]:
    """The weights in a checkpoint, see :func:`read_weights`. Of a
    distillation the student's weights are returned.

    Args:
        content: The checkpoint.
        path: Its file, for messages.
        key: Config key of the file, for messages.

    Raises:
        FileNotFoundError, ValueError: See :func:`checkpoint_io.load`; also if
            the file has no weights.
    """
    return plain_student(read_weights(content, f'{key}={path!r}'))


def require_checkpoints(teachers: Sequence[dict],
                        key: str = 'model.teachers') -> None:
    """Check that all checkpoint files exist, before anything is built.

    Args:
        teachers: See :class:`TeacherPool`; each has a ``name``.
        key: Config key of the teachers.

    Raises:
        FileNotFoundError: Files are missing; the message names each teacher
            and how to get its file.
    """
    missing = [
        (i, t) for i, t in enumerate(teachers)
        if _is_missing(t.get('checkpoint'))
    ]
    if not missing:
        return
    lines = [
        f"teacher {t['name']!r}: checkpoint={t['checkpoint']!r}: " +
        ('this is a folder; name a file in it'
         if os.path.isdir(t['checkpoint']) else
         'no such file' + _how_to_get(t)) for _, t in missing
    ]
    places = ' '.join(
        f'{key}.{i}.checkpoint=FILE' for i, _ in missing)
    lines.append(f'{len(missing)} of {len(teachers)} teachers have no '
                 f'checkpoint file (relative paths start at {os.getcwd()}). '
                 'If a file is elsewhere, give its path with --cfg-options '
                 f'{places}')
    if any(str(t.get('config')).startswith('mmkd_rl::cifar100/')
           for _, t in missing):
        lines.append('tools/reproduce.py trains what a table of the paper '
                     'needs, teachers included')
    raise FileNotFoundError('\n'.join(lines))


def _is_missing(checkpoint: object) -> bool:
    """Whether a checkpoint is a path without a file. Values that are not
    paths are validated later."""
    return isinstance(checkpoint, str) and checkpoint not in (
        '', UNTRAINED) and '://' not in checkpoint and not os.path.isfile(
            checkpoint)


def _how_to_get(teacher: dict) -> str:
    config, path = teacher.get('config'), Path(teacher['checkpoint'])
    if not isinstance(config, str):
        return ''
    ours = config.startswith('mmkd_rl::')
    if not ours and not os.path.isfile(config):
        return ''
    if path.parts[0] == 'checkpoints':
        place = config.replace('mmkd_rl::', 'configs/')
        return f'; the head of {place} says where its weights are'
    command = f'python tools/train.py {config}'
    if path.parent != Path('work_dirs', Path(config.split('::')[-1]).stem):
        command += f' --work-dir {path.parent}'
    return f'; train it: {command}'


def init_untrained(network: nn.Module) -> None:
    """Initialise a network without a checkpoint. Some parameters are
    uninitialised memory until then (level embeddings of Deformable DETR)."""
    if not hasattr(network, 'init_weights'):
        return
    # MMEngine logs one line for each weight.
    logging.disable(logging.INFO)
    try:
        network.init_weights()
    finally:
        logging.disable(logging.NOTSET)


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: str,
                 key: str) -> None:
    """Load weights into a network. All of the network's must be in the file,
    and no others but records, see :func:`without_records`.

    Args:
        model: The network.
        weights: Weights from :func:`read_checkpoint`, under the network's
            names or below a prefix, see :func:`fit_names`.
        path: The file, for messages.
        key: Config key of the file, for messages.

    Raises:
        ValueError: Weights are missing, left over, of another shape or not
            finite; the message counts them and names the first.
    """
    own = model.state_dict()
    weights = named_as(weights, own, list(filter(_matters, own)),
                       f'{key}={path!r}')
    missing = [n for n in own if n not in weights and _matters(n)]
    left_over = [n for n in weights if n not in own and _matters(n)]
    shapes = [
        f'{n} {tuple(weights[n].shape)} in the file, {tuple(own[n].shape)} in '
        'the config' for n in own
        if n in weights and own[n].shape != weights[n].shape
    ]
    if missing or left_over or shapes:
        parts = []
        if shapes:
            parts.append(f'{len(shapes)} of another shape: {_some(shapes)}')
            classes = _class_counts(own, weights)
            if classes:
                parts.append('the file has {} classes and the config {}'.
                             format(*classes))
        if missing:
            parts.append(f'{len(missing)} missing: {_some(missing)}')
        if left_over:
            parts.append(f'{len(left_over)} left over: {_some(left_over)}')
        raise ValueError(
            f'{key}={path!r} does not fit {type(model).__name__} '
            f'({sum(map(_matters, own))} weights in the config, '
            f'{sum(map(_matters, weights))} in the file): ' +
            '; '.join(parts) + _whose_names(own, weights))
    check_values(weights, f'{key}={path!r}')
    _warn_of_fresh_statistics(weights, f'{key}={path!r}')
    model.load_state_dict(weights, strict=False)


def _warn_of_fresh_statistics(weights: dict[str, Tensor], what: str) -> None:
    """Warn where batch norm has seen no batch: in evaluation mode, in which
    teachers run, such a network computes something else than in training."""
    means = [n for n in weights if n.endswith('running_mean')]
    fresh = [n for n in means if not weights[n].any() and bool(
        (weights.get(n[:-len('mean')] + 'var', weights[n]) == 1).all())]
    if fresh:
        print_log(
            f'{what}: {len(fresh)} of {len(means)} batch norms have the '
            f'statistics of a new network ({_some(fresh)}): they were never '
            'in training mode, and the network gives other outputs in '
            'evaluation than its makers saw', 'current', logging.WARNING)


def _matters(name: str) -> bool:
    """Preprocessors keep constants and old files lack batch counters."""
    return not name.startswith('data_preprocessor.') and not name.endswith(
        'num_batches_tracked')


def _whose_names(own: dict, weights: dict) -> str:
    """What to do about a file with torchvision's names of a ResNet's weights
    for MMPretrain's network."""
    if 'backbone.conv1.weight' in own and {
            'conv1.weight', 'fc.weight', 'layer1.0.conv1.weight'
    } <= weights.keys():
        return (". The names in the file are torchvision's; rename them: "
                'python tools/model_converters/convert.py FILE OUT --from '
                'torchvision')
    return ''


def _class_counts(own: dict, weights: dict) -> tuple[int, int] | None:
    """Numbers of classes in the file and in the config if they differ: the
    last bias has another length in both."""
    for name in reversed(list(own)):
        if name in weights and name.endswith('bias'):
            file, config = weights[name].shape, own[name].shape
            if len(file) == len(config) == 1 and file != config:
                return file[0], config[0]
            return None
    return None


def _some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
