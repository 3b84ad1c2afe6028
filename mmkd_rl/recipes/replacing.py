"""Takes a student's backbone for that of a detector's or segmentor's config.

The outputs of the new backbone have the strides of the old one's, as far as it
has them, and neck and heads get its widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import ConfigDict

from mmkd_rl.export.trained import TrainedBackbone
from mmkd_rl.recipes import fitting
from mmkd_rl.recipes.fitting import KEY
from mmkd_rl.recipes.levels import (
    all_strides,
    as_maps,
    first_strides,
    last_strides,
    levels,
    neck_levels,
    num_outputs,
    same_outputs,
)
from mmkd_rl.recipes.widths import Setting, fitted_neck, widths

#: Options of a config's backbone that another backbone takes over.
_KEPT = ('frozen_stages', 'norm_eval')


def rename_class(model: Any, trained: TrainedBackbone,
                 scope: str | None) -> list[str]:
    """Take the student's class for the config's backbone, with the options of
    the config that it accepts.

    Returns:
        The changes, for the user.
    """
    kind = (trained.config or {})['type']
    old = dict(model['backbone'], type=kind)
    plain = {k: v for k, v in old.items() if k not in ('strides', 'dilations')}
    options = fitting.keep_dilation(
        fitting.accepted(plain, scope), old, trained, scope)
    left = sorted(set(model['backbone']) - set(options))
    model['backbone'] = ConfigDict(options)
    return [f'model.backbone.type={kind}' + (
        f', without {", ".join(left)}' if left else '')]


def replace(model: Any, trained: TrainedBackbone,
            scope: str | None) -> list[str]:
    """Replace the backbone of a model's config by the student's.

    Args:
        model: Config of the model, changed in place.
        trained: The student's weights, with the config of its backbone.
        scope: Package in which types are looked up.

    Returns:
        The changes, for the user.

    Raises:
        ValueError: The student has no outputs of the strides for which the
            config's neck and heads are made.
    """
    old = model['backbone']
    new = fitting.keep_dilation(
        as_maps(dict(trained.config or {}), scope,
                for_detector='decode_head' not in model), old, trained, scope)
    new, start_level = _with_outputs(model, new, trained, scope)
    kept = {name: old[name] for name in _KEPT if name in old}
    if old.get('norm_cfg', {}).get('type') == 'SyncBN' and \
            fitting.has_batch_norm(new, scope):
        kept['norm_cfg'] = old['norm_cfg']
    new = fitting.with_accepted(new, kept, scope)
    if 'frozen_stages' in new:
        new['frozen_stages'] = min(
            new['frozen_stages'], num_outputs(new, scope))
    settings = widths(model, new, scope)
    if start_level is not None:
        settings.append(Setting('neck.start_level', start_level))
    wanted, given = (_strides(backbone, scope) for backbone in (old, new))
    model['backbone'] = ConfigDict(new)
    options = {k: new[k] for k in ('out_indices', 'stem_pool') if k in new}
    changes = [f'model.backbone={fitting.in_words(new)}, ' + ', '.join(
        f'{name}={value}' for name, value in options.items())]
    for setting in settings:
        setting.apply(model)
        changes.append(str(setting))
    if given != wanted:
        changes.append(f'(outputs of strides {given}; those of the config '
                       f'were {wanted})')
    return changes


def _with_outputs(model: dict, new: dict, trained: TrainedBackbone,
                  scope: str | None) -> tuple[dict, int | None]:
    """Select outputs of a student's backbone that neck and heads can use.

    Returns:
        The backbone's config, and the neck's ``start_level`` if it must be
        another one than in the config.

    Raises:
        ValueError: The backbone has no outputs of these strides.
    """
    wanted = _strides(model['backbone'], scope)
    strides = all_strides(new, scope)
    for options, start_level in _choices(model, new, strides, wanted, scope):
        chosen = fitting.with_accepted(new, options, scope)
        if _neck_fits(model, chosen, scope, start_level):
            return chosen, start_level
    raise ValueError(
        f'{KEY}={trained.path!r}: the student, {fitting.in_words(new)}, '
        f'has outputs of strides {strides}, and the neck and the heads of '
        f'the config are made for {wanted}; such a student needs a neck '
        'and heads of its own, see configs/_base_/demo_mask_rcnn.py')


def _choices(model: dict, new: dict, strides: list[int], wanted: list[int],
             scope: str | None) -> Iterator[tuple[dict, int | None]]:
    """Options of a backbone that select its outputs, the best first, with the
    neck's ``start_level`` as in :func:`_with_outputs`."""
    if same := same_outputs(model['backbone'], strides, wanted):
        yield same, None
    if 'decode_head' in model:  # it resizes its maps, so any strides work
        yield last_strides(new, scope, strides, wanted), None
        return
    if first := first_strides(new, scope, strides, wanted):
        yield first, None
    neck = model.get('neck')
    unused = neck.get('start_level', 0) if isinstance(neck, dict) else 0
    if unused and (first := first_strides(
            new, scope, strides, wanted[unused:])):
        yield first, 0  # the neck does not use the first levels anyway


def _strides(backbone: dict, scope: str | None) -> list[int]:
    return [stride for stride, _ in levels(backbone, scope)]


def _neck_fits(model: dict, backbone: dict, scope: str | None,
               start_level: int | None) -> bool:
    """Whether the neck of a model gives outputs of the same strides with
    another backbone; if there is no neck, see :func:`_heads_fit`.

    A feature pyramid makes the levels that a backbone with fewer stages lacks.

    Args:
        model: Config of the model.
        backbone: Config of the other backbone.
        scope: Package in which types are looked up.
        start_level: The neck's option; ``None`` for that of the config.
    """
    neck = model.get('neck')
    if neck is None:
        return _heads_fit(model, backbone, scope)
    if not isinstance(neck, dict):
        return True
    new = fitted_neck(neck, backbone, scope)
    if start_level is not None:
        new['start_level'] = start_level
    before, after = (
        neck_levels(config, network, scope) for config, network in (
            (neck, model['backbone']), (new, backbone)))
    return after is not None and before is not None and \
        [stride for stride, _ in before] == [stride for stride, _ in after]


def _heads_fit(model: dict, backbone: dict, scope: str | None) -> bool:
    """Whether the heads of a model without neck can have the outputs of
    another backbone.

    A segmentor's and a classifier's can, and Mask2Former's if there are as
    many; those of a detector with one map (C4) are made for its width.
    """
    if 'decode_head' in model or 'head' in model:
        return True
    old = model['backbone']
    if 'panoptic_head' in model:
        return _strides(old, scope) == _strides(backbone, scope)
    return levels(old, scope) == levels(backbone, scope)
