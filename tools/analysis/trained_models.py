"""Reads and builds trained detectors and segmentors, for analysis."""

from __future__ import annotations

import copy
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmkd_rl.export.student import DISTILLATION
from mmkd_rl.registry import MODELS
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.cli import check_checkpoint
from mmkd_rl.utils.configs import class_name, load_config
from mmkd_rl.utils.load_report import fitted, watch_loading

_FORMS = ('NAME=WORK_DIR or NAME=CONFIG:CHECKPOINT, such as '
          "'MTKD-RL=work_dirs/mtkd_rl'")


@dataclass(frozen=True)
class Run:
    """A trained model.

    Attributes:
        name: Title of its column.
        cfg: Config of its training.
        checkpoint: Path of its weights.
    """
    name: str
    cfg: Config
    checkpoint: str


def read_run(text: str) -> Run:
    """A run from ``NAME=WORK_DIR`` or ``NAME=CONFIG:CHECKPOINT``.

    Raises:
        ValueError: ``text`` is of neither form, or the folder has no config
            or several.
        FileNotFoundError: No such config, or no checkpoint.
    """
    name, equals, rest = text.partition('=')
    if not equals or not name.strip() or not rest:
        lack = 'no "="' if not equals else 'no name' if rest else 'no folder'
        raise ValueError(f'{text!r} has {lack}; write {_FORMS}')
    key = f'{name.strip()}: '
    if os.path.isdir(os.path.expanduser(rest)):
        checkpoint = checkpoint_io.last_checkpoint(rest, f'{key}work dir')
        config = _config_in(Path(rest).expanduser(), key)
    else:
        match = re.fullmatch(r'((?:\w+::)?[^:]+):(.+)', rest)
        if match is None:
            raise FileNotFoundError(
                f'{key}{rest!r} is not a folder; write {_FORMS}')
        config = match[1]
        checkpoint = checkpoint_io.last_checkpoint(
            match[2], f'{key}checkpoint')
    check_checkpoint(checkpoint, f'{key}checkpoint')
    cfg = load_config(config, f'{key}config')
    # A run without validation (--no-validate) can still be tested.
    cfg.val_dataloader = cfg.get('val_dataloader') or cfg.get(
        'test_dataloader')
    for part in ('model', 'val_dataloader'):
        if not cfg.get(part):
            raise ValueError(f'{key}{config!r} has no {part}')
    return Run(name.strip(), cfg, checkpoint)


def _config_in(folder: Path, key: str) -> str:
    """The config that was run in a work directory: that of
    ``tools/reproduce.py``, or the one that MMEngine wrote."""
    if (folder / 'config.py').is_file():
        return str(folder / 'config.py')
    found = sorted(folder.glob('*.py'))
    if len(found) != 1:
        has = ', '.join(p.name for p in found) or 'none'
        raise ValueError(
            f'{key}{str(folder)!r} must have one config (*.py), and has '
            f'{has}; write NAME=CONFIG:CHECKPOINT')
    return str(found[0])


def is_distilled(run: Run) -> bool:
    """Whether a run's model was distilled inside, with teachers."""
    return class_name(
        run.cfg.model.get('type')) == 'MultiTeacherDistiller'


def build_data(run: Run, **options: Any) -> Any:
    """The data set of a run's validation.

    Args:
        run: The run.
        **options: Options of the data set that are replaced.
    """
    init_default_scope(run.cfg.get('default_scope') or 'mmengine')
    return DATASETS.build(
        {**copy.deepcopy(run.cfg.val_dataloader.dataset), **options})


def open_distilled(run: Run) -> nn.Module:
    """Build the model of a distillation with its teachers, and load its
    weights and its strategy's, in evaluation mode.

    Raises:
        ValueError: The run is no distillation, or the checkpoint lacks
            weights of the model or of the strategy.
        FileNotFoundError: The checkpoint of a teacher does not exist.
    """
    cfg = copy.deepcopy(run.cfg)
    if not is_distilled(run):
        raise ValueError(f'{run.name}: its config has no teachers')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    if cfg.get('data_preprocessor'):  # as a runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    learner = model.distillation.weighting.learner
    watch_loading(model, 'checkpoint', run.checkpoint)
    checkpoint = load_checkpoint(model, run.checkpoint, map_location='cpu')
    state = checkpoint.get('state_dict', checkpoint)
    lacking = [name for name in model.state_dict()
               if name.startswith(DISTILLATION) and name not in state]
    if learner is not None and learner.checkpoint_key not in checkpoint:
        lacking.append(learner.checkpoint_key)
    if lacking:
        raise ValueError(
            f'{run.name}: {run.checkpoint!r} has no {lacking[0]!r}, so the '
            'weights of the teachers are not known; give a checkpoint of the '
            'training itself')
    if learner is not None:
        learner.load_state_dict(checkpoint[learner.checkpoint_key])
        learner.has_hook = True  # or it would warn that nothing trains it
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()


def open_model(run: Run, detects: bool) -> nn.Module:
    """Build a model by its toolbox and load its weights.

    Raises:
        ValueError: The checkpoint lacks weights of the model.
    """
    cfg = copy.deepcopy(run.cfg)
    # A distilled model's weights have the names of the student's own.
    if is_distilled(run):
        distilled, cfg.model = cfg.model, cfg.model.student
        if isinstance(cfg.model, str):
            cfg.model = load_config(cfg.model, 'model.student').model
        if distilled.get('data_preprocessor'):
            cfg.model.data_preprocessor = distilled.data_preprocessor
    if not cfg.model.get('data_preprocessor') and cfg.get('data_preprocessor'):
        cfg.model.data_preprocessor = cfg.data_preprocessor
    # Both toolboxes look for the steps of an image under these names.
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_pipeline = [
        step for step in cfg.val_dataloader.dataset.pipeline
        if class_name(step.get('type')) != 'LoadAnnotations']
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    # No checkpoint yet: the toolboxes only log that weights are missing.
    if detects:
        from mmdet.apis import init_detector
        with warnings.catch_warnings(record=True) as said:
            model = init_detector(cfg, device=device)
        for warning in said:
            # "checkpoint is None, use COCO classes": they are not used here.
            if 'checkpoint is None' not in str(warning.message):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename,
                    warning.lineno)
    else:
        from mmseg.apis import init_model
        model = init_model(cfg, device=device)
    weights = fitted(checkpoint_io.load(run.checkpoint), model,
                     repr(run.checkpoint))
    watch_loading(model, 'checkpoint', run.checkpoint)
    load_state_dict(model, weights, logger='current')
    return model
