"""Builds a teacher from its config."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.tasks import Task
from mmkd_rl.teachers.facts import Facts
from mmkd_rl.teachers.loading import (
    UNTRAINED,
    build_network,
    init_untrained,
    input_scale,
    input_size,
    load_model_config,
    load_weights,
    offline,
    weights_in,
)
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.sources import expand
from mmkd_rl.teachers.tapped import PRECISIONS
from mmkd_rl.teachers.teacher import FrozenTeacher
from mmkd_rl.utils.checkpoint_io import load
from mmkd_rl.utils.precision import EMULATED, bfloat16_slowdown
from mmkd_rl.utils.state_dicts import fit_names

#: Types of preprocessors without a ``type``, by package.
_PREPROCESSORS = dict(
    mmpretrain='mmpretrain.ClsDataPreprocessor',
    mmdet='mmdet.DetDataPreprocessor',
    mmseg='mmseg.SegDataPreProcessor')


def build_teacher(cfg: dict, name: str, task: Task) -> FrozenTeacher:
    """Build a teacher from the user's dict.

    Args:
        cfg: See :class:`TeacherPool`.
        name: The teacher's name.
        task: Adapter that runs it; determines whether only its backbone is
            built.

    Raises:
        ValueError, TypeError, FileNotFoundError: The dict is wrong.
    """
    key = f'teacher {name!r}'
    cfg = expand(cfg, key)
    if 'config' not in cfg:
        raise ValueError(f'{key} has no config; give a path, '
                         '"package::path" or a dict')
    path = cfg.get('checkpoint')
    if not isinstance(path, str) or not path:
        raise ValueError(
            f'{key} has no checkpoint (got {path!r}); give a file or a URL, '
            f'or checkpoint={UNTRAINED!r} for random weights')
    precision = cfg.get('precision')
    if precision is not None and precision not in list(PRECISIONS):
        raise ValueError(f'{key}: precision must be one of '
                         f"{list(PRECISIONS)}, or None for the student's "
                         f'precision; got {precision!r}')
    if precision == 'bfloat16' and not torch.cuda.is_available() and (
            slowdown := bfloat16_slowdown(torch.device('cpu'))) > EMULATED:
        print_log(
            f"{key}: precision='bfloat16' takes {slowdown:.1f} times as long "
            'as float32 here, because the processor emulates it; float32 '
            'is faster', 'current', logging.WARNING)
    # Read before anything large is built: a wrong path is found at once.
    content = None if path == UNTRAINED else load(path, f'{key}: checkpoint')
    weights = None if content is None else weights_in(
        content, path, f'{key}: checkpoint')
    model_cfg, scope = load_model_config(cfg['config'], f'{key}: config')
    if task.backbone_only:
        # A backbone's type without a prefix is of the model's package.
        scope = task.scope_for(_prefix(model_cfg) or scope)
        network = _build_backbone(model_cfg, scope, key)
    else:
        scope = task.scope_for(scope)
        network = build_network(offline(model_cfg), scope, key)
    if weights is None:
        init_untrained(network)
    else:
        if task.backbone_only:
            own = network.state_dict()
            weights = _own_part(fit_names(weights, own)[0], set(own))
        load_weights(network, weights, path, f'{key}: checkpoint')
    taps = None if task.backbone_only else cfg.get('taps')
    facts = Facts.of(content, weights)
    return FrozenTeacher(
        name, network, task.taps(network, taps, key), task,
        _normalization(cfg, model_cfg, network, scope, key,
                       facts.normalization),
        input_size(cfg, key), precision, cfg.get('executor', 'eager'),
        facts, input_scale(cfg, key))


def _build_backbone(model_cfg: dict, scope: str | None,
                    key: str) -> nn.Module:
    """Build the backbone of a model; the whole model if it has none."""
    backbone = model_cfg.get('backbone')
    if backbone is not None:
        backbone = dict(offline(backbone))
        backbone.pop('data_preprocessor', None)
        return build_network(backbone, scope, key)
    try:
        return build_network(offline(model_cfg), scope, key)
    except TypeError as error:
        if 'data_preprocessor' not in str(error):
            raise
    # The config of a backbone to which load_model_config added a preprocessor.
    own = {k: v for k, v in model_cfg.items() if k != 'data_preprocessor'}
    return build_network(offline(own), scope, key)


def _own_part(weights: dict[str, Tensor],
              own: set[str]) -> dict[str, Tensor]:
    """Select a backbone's weights from those of a whole model."""
    prefix = 'backbone.'
    inner = {n.removeprefix(prefix): t for n, t in weights.items()
             if n.startswith(prefix)}
    if inner and not any(n.startswith(prefix) for n in own):
        weights = inner
    # If the backbone is complete, all other weights belong to heads.
    needed = {n for n in own if not n.endswith('num_batches_tracked')}
    return {n: t for n, t in weights.items() if n in own} \
        if needed <= set(weights) else weights


def _normalization(cfg: dict, model_cfg: dict, network: nn.Module,
                   scope: str | None, key: str,
                   trained: Normalization | None) -> Normalization | None:
    """Normalisation in a teacher's training; ``None``: unknown.

    Args:
        cfg: The user's dict.
        model_cfg: Config of the network.
        network: The network.
        scope: Package in which types are looked up.
        key: Config key of the teacher.
        trained: What the checkpoint says.
    """
    if 'normalization' in cfg:
        return Normalization.from_config(cfg['normalization'],
                                         f'{key}: normalization')
    preprocessor = model_cfg.get('data_preprocessor')
    if preprocessor is None and trained is not None:
        print_log(f'{key}: its config has no data_preprocessor; the '
                  "normalisation is that of the checkpoint's training: "
                  f'{trained}', 'current')
        return trained
    if preprocessor is None:
        print_log(
            f'{key}: its config has no data_preprocessor, so it is given '
            "images in the student's normalisation. Set "
            'normalization=dict(mean=..., std=..., to_rgb=...) if it was '
            'trained with another one', 'current')
        return None
    own: Any = getattr(network, 'data_preprocessor', None)
    if own is None:
        cfg = {k: v for k, v in preprocessor.items() if k != 'batch_augments'}
        cfg.setdefault('type', _PREPROCESSORS.get(
            str(scope), _PREPROCESSORS['mmpretrain']))
        own = build_network(cfg, scope, key)
    found = Normalization.of(own)
    if found and trained and not found.is_close(trained):
        print_log(
            f'{key}: its checkpoint was trained with images normalised by '
            f'{trained}, and its config says {found}. The config is followed; '
            'if it is wrong, set normalization=dict(mean=..., std=..., '
            'to_rgb=...)', 'current', logging.WARNING)
    return found


def _prefix(model_cfg: dict) -> str | None:
    package, dot, _ = str(model_cfg['type']).partition('.')
    return package if dot else None
