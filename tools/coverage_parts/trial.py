"""Tries a config: one training step and one prediction, with teachers."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import random
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmpretrain.models.classifiers import BaseClassifier
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from torch import nn

import mmkd_rl
from coverage_parts.small import (
    Size,
    num_channels,
    num_classes,
    random_batch,
    registered,
    sizes,
    with_size,
)
from coverage_parts.teachers import teachers_for
from coverage_parts.verdicts import FAILS, NOT_APPLICABLE, WORKS
from mmkd_rl.distillers.distillation import NAME, distillation_of
from mmkd_rl.errors import is_ours
from mmkd_rl.flow import KnowledgeFlow
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.cli import describe
from mmkd_rl.utils.configs import class_name, load_config

#: Packages whose files are named in reasons.
_PACKAGES = ('mmkd_rl', 'mmseg', 'mmpretrain', 'mmdet', 'mmcv', 'mmengine')
_COUNT = 2
#: What a prediction has, one of them.
_PREDICTIONS = ('pred_sem_seg', 'pred_score', 'pred_instances',
                'pred_panoptic_seg')
#: Models of MMDetection that are not distilled, by a base class.
_OTHER_MODELS = dict(
    BaseMOTModel='tracks objects in videos',
    BaseReID='identifies objects, it finds none',
    SemiBaseDetector='a teacher and a student already, semi-supervised',
    KnowledgeDistillationSingleStageDetector="MMDetection's own distiller",
    FastRCNN='needs a file of region proposals')
#: Before the reason of a failure that is not the distillation's.
_PLAIN = 'without distillation, too:'


class WrongResult(Exception):
    """A step ran to its end, but its result is not a distillation's."""


def examine(config: str, strategy: str,
            lean: bool = False) -> tuple[str, str]:
    """Try a config of a toolbox.

    Sizes of images are tried from small to the config's own: at the first at
    which the plain config trains, it must do so with teachers, too.

    Args:
        config: Name of the config, ``'mmseg::pspnet/x.py'``.
        strategy: See :func:`mmkd_rl.distill`.
        lean: See :func:`with_size`.

    Returns:
        Status and reason, see :class:`Verdict`.
    """
    _quiet_and_offline()
    try:
        cfg = load_config(config)
    except Exception as error:
        # Configs are code, so reading one may raise anything.
        return FAILS, f'{_PLAIN} {in_a_line(error)}'
    try:
        init_default_scope(cfg.default_scope)
        if reason := why_not(cfg):
            return NOT_APPLICABLE, reason
        return try_sizes(cfg, strategy, lean)
    except Exception as error:
        # A toolbox may raise anything.
        return FAILS, in_a_line(error)


def why_not(cfg: Config) -> str:
    """Why a config's model cannot have softmax distillation; ``''`` if it
    can. Unknown types can: building them fails, with their names."""
    kind = registered(MODELS, cfg.model.type, cfg.default_scope)
    if not isinstance(kind, type):
        return ''
    package, _, inner = kind.__module__.partition('.')
    name = kind.__name__
    if package == 'mmpretrain' and not issubclass(kind, BaseClassifier):
        what = next((text for part, text in (
            ('selfsup', 'self-supervised pre-training'),
            ('retrievers', 'image retrieval'),
            ('multimodal', 'a multi-modal model'))
            if f'.{part}' in f'.{inner}'), 'no classifier')
        return f'{name}: {what}, which gives no scores of classes'
    if package == 'mmseg' and issubclass(kind, BaseSegmentor) and \
            kind not in (EncoderDecoder, CascadeEncoderDecoder):
        others = dict(
            MultimodalEncoderDecoder="zero-shot, its classes are a text "
            "model's", DepthEstimator='estimates depth, it has no classes')
        return f'{name}: {others[name]}' if name in others else ''
    if class_name(cfg.optim_wrapper.get('type')).startswith('DeepSpeed') and \
            importlib.util.find_spec('deepspeed') is None:
        return "package 'deepspeed' is not installed"
    if package == 'mmdet':
        return _why_no_detector(cfg, kind)
    return ''


def _why_no_detector(cfg: Config, kind: type) -> str:
    """As :func:`why_not`, of a model of MMDetection."""
    bases = {base.__name__ for base in kind.__mro__}
    for base, what in _OTHER_MODELS.items():
        if base in bases:
            return f'{kind.__name__}: {what}'
    if 'language_model' in cfg.model:
        return f"{kind.__name__}: its classes are a text model's"
    if cfg.default_scope != 'mmdet':
        return f'{kind.__name__}: in the config of another package'
    return ''


def try_sizes(cfg: Config, strategy: str, lean: bool) -> tuple[str, str]:
    """See :func:`examine`."""
    plain_error = None
    for size in sizes(cfg):
        small = with_size(cfg, size, lean)
        text = f'{size[0]} x {size[1]} pixels'
        try:
            losses = step(distilled(small, strategy), size)
            return WORKS, f'{text}; {", ".join(losses)}'
        except Exception as error:
            failed = error
        # Without the failed model's memory.
        traceback.clear_frames(failed.__traceback__)
        try:
            step(small, size)
        except Exception as error:
            plain_error = error
            continue
        return FAILS, f'{in_a_line(failed)} ({text})'
    assert plain_error is not None
    if isinstance(plain_error, ImportError):
        return NOT_APPLICABLE, _not_installed(plain_error)
    return FAILS, f'{_PLAIN} {in_a_line(plain_error)}'


def distilled(cfg: Config, strategy: str) -> Config:
    """The config as a distillation from two small teachers."""
    return mmkd_rl.distill(cfg, strategy, teachers_for(
        cfg, num_classes(cfg), num_channels(cfg)))


def step(cfg: Config, size: Size) -> list[str]:
    """Train a config's model for one step, then predict.

    Args:
        cfg: From :func:`with_size`, or its distillation.
        size: (H, W) of the images.

    Returns:
        Names of the losses that the distillation added.

    Raises:
        WrongResult: The step ran, but its result is wrong.
    """
    _seed()
    # Batch augmentations of detectors read how far the training is.
    for name, value in (('iter', 0), ('epoch', 0), ('max_iters', 1000)):
        MessageHub.get_current_instance().update_info(name, value)
    model = _built(cfg)
    reached: set[str] = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith(f'{NAME}.'):
            parameter.register_hook(_recording(reached, name))
    for module in model.modules():
        if isinstance(module, KnowledgeFlow):
            # Its hook sets this; there is no runner here.
            module.strength = 1.
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    wrapper.initialize_count_status(model, 0, 1)
    model.train()
    plain = _plain(cfg)
    log = model.train_step(random_batch(plain, size, _COUNT), wrapper)
    added = check_losses(model, {k: float(v) for k, v in log.items()})
    if not reached:
        raise WrongResult('no parameter of the student got a gradient')
    model.eval()
    with torch.no_grad():
        results = model.val_step(random_batch(plain, size, _COUNT))
    check_results(results)
    return added


def _built(cfg: Config) -> nn.Module:
    """Build a model as MMEngine's runner does."""
    model_cfg = cfg.model
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = ROOT_MODELS.build(model_cfg)
    model.init_weights()
    return model


def _plain(cfg: Config) -> Config:
    """The config whose model is the student, for the format of its data."""
    student = cfg.model.get('student')
    if student is None:
        return cfg
    plain = Config(cfg.to_dict(), format_python_code=False)
    plain.model = student
    return plain


def _recording(reached: set[str], name: str) -> Callable:
    def hook(gradient: torch.Tensor) -> None:
        if gradient.any():
            reached.add(name)
    return hook


def check_losses(model: nn.Module, log: dict[str, float]) -> list[str]:
    """Check the losses of a training step, and return those that the
    distillation added.

    Raises:
        WrongResult: A value is not finite, or a loss is missing.
    """
    bad = sorted(name for name, value in log.items()
                 if not math.isfinite(value))
    if bad:
        raise WrongResult(f'losses are not finite: {", ".join(bad)}')
    distillation = distillation_of(model)
    if distillation is None:
        return []
    kinds = {'loss_logit' if term.reads == 'logits' else 'loss_feature'
             for term in distillation.terms}
    missing = sorted(kind for kind in kinds
                     if not any(name.startswith(kind) for name in log))
    if missing:
        raise WrongResult(f'no {" and no ".join(missing)} among the losses '
                          f'{", ".join(log)}')
    return sorted(name for name in log if name.startswith(tuple(kinds)))


def check_results(results: Any) -> None:
    """Check that a prediction has a result for each image.

    Raises:
        WrongResult: It has not.
    """
    if not isinstance(results, (list, tuple)) or len(results) != _COUNT:
        found = len(results) if hasattr(results, '__len__') else 'no list'
        raise WrongResult(f'{_COUNT} images have {found} predictions')
    if not all(any(key in r for key in _PREDICTIONS) for r in results):
        raise WrongResult(f'a prediction has none of {", ".join(_PREDICTIONS)}'
                          )


# ----------------------------------------------------------------- reasons


def in_a_line(error: BaseException) -> str:
    """Type and text of an exception, and the place where it was raised. A
    cause has its own place."""
    words = ' '.join(describe(error).split())
    text = f'{type(error).__name__}: {words}' + _place(error)
    if error.__cause__ is not None:
        text += f', caused{_place(error.__cause__)}'
    return text


def _place(error: BaseException) -> str:
    """The innermost line in our package or a toolbox; of a toolbox, also the
    line of ours that led there."""
    frames = [(frame, name) for frame in
              reversed(traceback.extract_tb(error.__traceback__))
              if (name := _short(frame.filename)) and
              not name.startswith('mmengine/registry')]
    if not frames:
        return ''
    text = f' at {frames[0][1]}:{frames[0][0].lineno}'
    if is_ours(frames[0][0]):
        return text
    ours = next(((f, n) for f, n in frames if n.startswith('mmkd_rl')), None)
    return text + (f' from {ours[1]}:{ours[0].lineno}' if ours else '')


def _short(filename: str) -> str:
    """Path of a file from the name of its package on; ``''`` for files of
    other packages."""
    parts = Path(filename).parts
    at = max((i for i, part in enumerate(parts) if part in _PACKAGES),
             default=None)
    return '' if at is None else '/'.join(parts[at:])


def _not_installed(error: ImportError) -> str:
    package = (error.name or '').partition('.')[0]
    return f'package {package!r} is not installed' if package else \
        f'a package is not installed: {describe(error)}'


# ---------------------------------------------------------- the environment


def _quiet_and_offline() -> None:
    """No logs, no warnings, and no downloads."""
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    os.environ.update(HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1')
    for prefix in ('http://', 'https://', 'open-mmlab://', 'openmmlab://',
                   'mmcls://', 'torchvision://', 'modelzoo://'):
        CheckpointLoader.register_scheme(prefix, _no_download, force=True)


def _no_download(filename: str, map_location: Any = None) -> None:
    raise WrongResult(f'it would download {filename}')


def _seed() -> None:
    random.seed(0)
    # Toolboxes draw from the global generator.
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
