"""Lets the teachers of a distillation's config store their outputs."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config, ConfigDict

from mmkd_rl.options import Count
from mmkd_rl.utils.configs import class_name


def store_outputs(cfg: Config, folder: str | os.PathLike, views: Count = 8,
                  repeats: Count = 1, **options: Any) -> None:
    """Let all teachers that have no executor store their outputs, and give
    the training data repeatable views, in place.

    Args:
        cfg: The config of a distillation.
        folder: Folder of the stores.
        views: See :class:`RepeatableViews`. A data set that has repeatable
            views keeps its number.
        repeats: See :class:`ViewSampler`.
        **options: Of :class:`StoredExecutor`.
    """
    for teacher in cfg.model.teachers:
        if not teacher.get('executor'):
            teacher['executor'] = dict(type='stored',
                                       folder=os.fspath(folder), **options)
    loader = cfg.train_dataloader
    if class_name(loader.dataset.get('type')) != 'RepeatableViews':
        loader['dataset'] = ConfigDict(
            type='mmkd_rl.RepeatableViews', views=views,
            dataset=loader.dataset)
    sampler = loader.get('sampler') or dict(type='DefaultSampler',
                                            shuffle=True)
    if class_name(sampler.get('type')) != 'ViewSampler':
        loader['sampler'] = ConfigDict(
            type='mmkd_rl.ViewSampler', repeats=repeats, sampler=sampler)
    hooks = list(cfg.get('custom_hooks') or ())
    if not any(class_name(h.get('type')) == 'StoredOutputsHook'
               for h in hooks):
        hooks.append(dict(type='mmkd_rl.StoredOutputsHook'))
    cfg.custom_hooks = hooks
