"""Starts a detector or a segmentor from a trained student's backbone."""

from __future__ import annotations

import copy
import os
import re
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from torch import nn

from mmkd_rl.export.trained import TrainedBackbone, read_trained
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.loading import build_network, init_untrained, offline
from mmkd_rl.utils.configs import load_config

KEY = '--backbone-from'
#: Options of a backbone that say nothing about its weights.
_TRAINING = ('type', 'init_cfg', 'pretrained', 'frozen_stages', 'norm_eval',
             'with_cp', 'out_indices', 'norm_cfg', 'drop_path_rate',
             'dilations', 'strides', 'contract_dilation', 'num_classes')
#: More stages than any backbone of the toolboxes has.
_MOST_OUTPUTS = 12
_OF_OUTPUT = re.compile(r'norm\d+\.')
#: Classes that differ in their stem alone.
_STEMS = ('ResNet', 'ResNetV1c', 'ResNetV1d')


def with_backbone(config: Config | str | os.PathLike,
                  source: str | os.PathLike) -> Config:
    """The config of a model that starts from a trained student's backbone.

    Its ``init_cfg`` and normalisation are set; a student's backbone that the
    config's toolbox does not have takes the place of the config's, with the
    widths that the necks and heads behind it then need. What was set is
    logged.

    Args:
        config: A training config of MMDetection, MMSegmentation or
            MMPretrain: a path, ``'package::path'``, or a Config.
        source: The ``work_dir`` of a student's training (its last checkpoint
            is meant), a checkpoint, or an export of tools/export_student.py.

    Returns:
        A new config; the one that was given stays as it is.

    Raises:
        ValueError: The backbones do not fit (another stem, depth or number of
            stages); the message has the settings that would. Or ``source`` is
            no classifier's checkpoint.
        FileNotFoundError: No such config or checkpoint.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else \
        load_config(config)
    model: Any = cfg.get('model')
    if not isinstance(model, dict) or not isinstance(
            model.get('backbone'), dict):
        raise ValueError(f"{KEY}: the config's model has no backbone")
    trained = read_trained(source, KEY)
    scope = cfg.get('default_scope')
    said: list[str] = []
    if _misfit(model['backbone'], trained, scope) and _is_other_kind(
            model['backbone'], trained, scope):
        said += _replace(cfg, trained, scope)
    _check_fit(model, trained, scope)
    if 'pretrained' in model:
        model['pretrained'] = None
    model['backbone'] = ConfigDict(_starting(model['backbone'], trained))
    said.append(f'model.backbone.init_cfg.checkpoint={trained.path!r}')
    said += _normalize(cfg, trained)
    # There is no logger yet.
    print_log(f'{KEY} has set\n  ' + '\n  '.join(said))
    return cfg


def _starting(backbone: dict, trained: TrainedBackbone) -> dict:
    """The backbone's config with the file as its start."""
    return {**offline(dict(backbone)), 'init_cfg': dict(
        type='Pretrained', checkpoint=trained.path, prefix=trained.prefix)}


def _is_other_kind(backbone: dict, trained: TrainedBackbone,
                   scope: str | None) -> bool:
    """Whether the student's backbone is of another class than the config's,
    and differs in more than its stem."""
    if trained.config is None:
        return False
    ours, theirs = trained.config['type'], backbone['type']
    if _plain(ours) in _STEMS and _plain(theirs) in _STEMS:
        return False
    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.get(ours) is not registry.get(theirs)


def _replace(cfg: Config, trained: TrainedBackbone,
             scope: str | None) -> list[str]:
    """Put the student's backbone in the place of the config's."""
    model: Any = cfg.model
    old, new = model['backbone'], dict(trained.config or {})
    # Levels of the same strides, as far as the student has them.
    wanted = [stride for stride, _ in _levels(old, scope)]
    count = _num_outputs(new, scope)
    strides = [stride for stride, _ in _levels(
        dict(new, out_indices=tuple(range(count))), scope)]
    last = {stride: index for index, stride in enumerate(strides)}
    if set(wanted) <= set(last):
        new['out_indices'] = tuple(last[stride] for stride in wanted)
    elif isinstance(model.get('decode_head'), (dict, list)):
        # Its maps are resized, so that strides do not matter.
        new['out_indices'] = tuple(range(max(0, count - len(wanted)), count))
    else:
        raise ValueError(
            f'{KEY}={trained.path!r}: the student, {_line(new)}, has outputs '
            f'of strides {strides}, and the neck and the heads of the config '
            f'are made for {wanted}; such a student needs a neck and heads of '
            'its own, see configs/_base_/demo_mask_rcnn.py')
    for name in ('frozen_stages', 'norm_eval'):
        if name in old and hasattr(_built(new, scope), name):
            new[name] = old[name]
    model['backbone'] = ConfigDict(new)
    said = [f'model.backbone={_line(new)}, out_indices={new["out_indices"]}']
    for place, value in _widths(model, new, scope):
        _, part, name = place.split('.')
        model[part][name] = value
        said.append(f'{place}={value}')
    return said


def _widths(model: dict, backbone: dict, scope: str | None
            ) -> list[tuple[str, Any]]:
    """Keys and values of what is behind a backbone and must fit its
    outputs."""
    channels = [width for _, width in _levels(backbone, scope)]
    found: list[tuple[str, Any]] = []
    neck = model.get('neck')
    if isinstance(neck, dict) and isinstance(
            neck.get('in_channels'), (list, tuple)):
        found.append(('model.neck.in_channels', channels))
    for name in ('decode_head', 'auxiliary_head'):
        head = model.get(name)
        if isinstance(head, dict) and isinstance(head.get('in_channels'), int):
            index = min(head.get('in_index', -1), len(channels) - 1)
            found += [(f'model.{name}.in_index', index),
                      (f'model.{name}.in_channels', channels[index])]
    return [(place, value) for place, value in found
            if _at(model, place) != value]


def _at(model: dict, place: str) -> Any:
    """The value of a key such as ``model.neck.in_channels``."""
    _, part, name = place.split('.')
    return model[part].get(name)


def _check_fit(model: dict, trained: TrainedBackbone,
               scope: str | None) -> None:
    """Raise where not all weights of a backbone come from the file."""
    backbone = model['backbone']
    problem = _misfit(backbone, trained, scope)
    if problem:
        raise ValueError(
            f'{KEY}={trained.path!r} does not fit model.backbone '
            f'({_line(backbone)}): {problem}' +
            _advice(model, trained, scope))
    own = (trained.config or {}).get('style', 'pytorch')
    if backbone.get('style', 'pytorch') != own and _plain(
            backbone['type']) in _STEMS:
        raise ValueError(
            f'{KEY}: model.backbone.style={backbone.get("style")!r} puts '
            f'strides where the student, of style {own!r}, has none, so the '
            'same weights are another network; set --cfg-options '
            f'model.backbone.style={own}')


def _misfit(backbone: dict, trained: TrainedBackbone,
            scope: str | None) -> str:
    """What is wrong with the file for this backbone; empty: it fits.

    The backbone is built and initialised for it: some of MMSegmentation's and
    MMDetection's read files in ways of their own, and what they do not find
    they leave out.
    """
    network = _built(backbone, scope)
    own = {n: t.shape for n, t in network.state_dict().items()
           if not n.endswith('num_batches_tracked')}
    file = {n: t for n, t in trained.weights.items()
            if not n.endswith('num_batches_tracked')}
    # An output may have a norm of its own, which a classifier lacks.
    new = [n for n in own if n not in file and _OF_OUTPUT.match(n)]
    missing = [n for n in own if n not in file and n not in new]
    shapes = [n for n in own if n in file and own[n] != file[n].shape]
    extra = [n for n in file if n not in own]
    if not missing and not shapes and not extra:
        started = _built(_starting(backbone, trained), scope, keep=True)
        try:
            init_untrained(started)
        except (KeyError, RuntimeError, AssertionError) as error:
            return (f'{type(network).__name__} cannot read it '
                    f'({type(error).__name__}: {error})')
        values = started.state_dict()
        left = [n for n in file if not torch.equal(values[n], file[n])]
        if left:
            return (f'{type(network).__name__} does not read {len(left)} of '
                    f'its {len(own)} weights from it ({_some(left)})')
        return ''
    found = [f'{len(names)} of {count} weights {what} ({_some(names)})'
             for names, count, what in (
                 (missing, len(own), 'are not in the file'),
                 (shapes, len(own), 'have another shape there'),
                 (extra, len(file), 'of the file are not in it')) if names]
    return ', '.join(found)


def _some(names: list[str]) -> str:
    return names[0] + (', ...' if len(names) > 1 else '')


def _advice(model: dict, trained: TrainedBackbone,
            scope: str | None) -> str:
    """The settings with which it would fit, as the end of a message."""
    student, backbone = trained.config, model['backbone']
    if student is None:
        return (". The file does not say which network it is of; give the "
                "run's own checkpoint, or set model.backbone to it")
    wanted = {k: v for k, v in student.items() if k not in _TRAINING
              and backbone.get(k) != v}
    if _plain(student['type']) != _plain(backbone['type']):
        # These three toolboxes have the same ResNet.
        kind = student['type'] if _plain(student['type']) != 'ResNet' else \
            'ResNet'
        wanted = {'type': kind, **wanted}
    if not wanted:
        return f'. The student is {_line(student)}'
    settings = [f'model.backbone.{k}={_word(v)}' for k, v in wanted.items()]
    changed = {**backbone, **wanted}
    settings += [f'{place}={_word(value)}'
                 for place, value in _widths(model, changed, scope)]
    return (f'. The student is {_line(student)}; this fits: --cfg-options '
            + ' '.join(settings))


def _normalize(cfg: Config, trained: TrainedBackbone) -> list[str]:
    """Give the model the student's normalisation."""
    student, own = trained.preprocessor, _preprocessor(cfg)
    if not student or own is None or student.get('mean') is None:
        return [] if own is None else [
            'nothing in model.data_preprocessor: the file does not say how '
            'its images were normalised']
    swap = bool(student.get('to_rgb', student.get('bgr_to_rgb', False)))
    name = 'to_rgb' if 'ClsDataPreprocessor' in str(own.get('type')) else \
        'bgr_to_rgb'
    new = dict(mean=list(student['mean']), std=list(student['std']),
               **{name: swap})
    changed = {k: v for k, v in new.items() if own.get(k) != v}
    own.update(new)
    return [f'model.data_preprocessor.{k}={v}' for k, v in changed.items()]


def _preprocessor(cfg: Config) -> dict | None:
    """The preprocessor that the model is built with."""
    own = cfg.model.get('data_preprocessor')
    return own if isinstance(own, dict) else cfg.get('data_preprocessor')


def _built(backbone: dict, scope: str | None, keep: bool = False
           ) -> nn.Module:
    """The backbone, without what it would start from unless ``keep``."""
    cfg = dict(backbone) if keep else offline(dict(backbone))
    # Synchronised statistics need processes.
    norm = cfg.get('norm_cfg')
    if isinstance(norm, dict) and norm.get('type') == 'SyncBN':
        cfg['norm_cfg'] = dict(norm, type='BN')
    return build_network(cfg, scope, 'model.backbone')


@torch.no_grad()
def _levels(backbone: dict, scope: str | None) -> list[tuple[int, int]]:
    """Stride and channels of each output, by a look at a grey image."""
    network, side = _built(backbone, scope), 224
    network.eval()  # returns nothing in these toolboxes
    return [(side // level.shape[-1], level.shape[1])
            for level in network(torch.zeros(1, 3, side, side))]


def _num_outputs(backbone: dict, scope: str | None) -> int:
    """How many outputs a backbone can give."""
    for count in range(_MOST_OUTPUTS, 1, -1):
        try:
            _built(dict(backbone, out_indices=tuple(range(count))), scope)
        except (AssertionError, ValueError, IndexError, TypeError):
            continue
        return count
    return 1


def _line(backbone: dict) -> str:
    """A backbone in a few words."""
    options = {k: v for k, v in backbone.items()
               if k not in _TRAINING and not isinstance(v, dict)}
    return f'{backbone["type"]}(' + ', '.join(
        f'{k}={v!r}' for k, v in options.items()) + ')'


def _word(value: Any) -> str:
    return str(value).replace(' ', '')


def _plain(kind: Any) -> str:
    return str(kind).rpartition('.')[2]
