"""Finds strides and widths of the outputs of backbones and necks."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mmkd_rl.backbones.base import POOLS
from mmkd_rl.recipes.fitting import (
    built,
    in_words,
    on_meta,
    outline,
    parameters,
    with_accepted,
)
from mmkd_rl.teachers.loading import build_network, offline

#: Side of the image with which strides are found, pixels.
_SIDE = 256
#: More outputs than any backbone of the toolboxes has; ViT-G has 48.
_MOST_OUTPUTS = 64
#: Options of classifiers' backbones that turn the last output into a vector,
#: and the values with which it is a map.
_MAPS = {'out_type': 'featmap', 'gap_before_final_norm': False,
         'reshape_last_feat': True, 'features_only': True}


def levels(backbone: dict, scope: str | None) -> list[tuple[int, int]]:
    """Stride and number of channels of each output of a backbone, found with
    an image of its ``img_size``, or of 256x256 pixels.

    Raises:
        ValueError: The outputs are vectors, not feature maps, or the backbone
            cannot be run on such an image.
    """
    side = backbone.get('img_size', _SIDE)
    side = side if isinstance(side, int) else side[0]
    try:
        outputs = _shapes(lambda: built(backbone, scope),
                          lambda: torch.zeros(1, 3, side, side))
    except RuntimeError as error:
        raise ValueError(f'{in_words(backbone)} cannot be run on an image of '
                         f'{side}x{side} pixels: {error}') from error
    if any(len(shape) != 4 for shape in outputs):
        raise ValueError(f'{in_words(backbone)} has vectors as outputs; a '
                         'detector or segmentor needs feature maps')
    return [(side // shape[-1], shape[1]) for shape in outputs]


def as_maps(backbone: dict, scope: str | None, for_detector: bool) -> dict:
    """The config of a backbone whose outputs are feature maps; a classifier's
    transformer gives its class token, for example.

    Args:
        backbone: Config of a classifier's backbone.
        scope: Package in which its type is looked up.
        for_detector: Whether RoIAlign may read the maps. MMCV's operator
            misreads maps in the channels-last memory format without an error.
    """
    new = with_accepted(backbone, _MAPS, scope)
    if for_detector:
        new.pop('channels_last', None)
    return new


def same_outputs(old: dict, strides: list[int],
                 wanted: list[int]) -> dict | None:
    """The ``out_indices`` of a config's backbone, if a student has outputs of
    the same strides there.

    Args:
        old: Config of the config's backbone.
        strides: Strides of all outputs that the student can have.
        wanted: Strides of the outputs of ``old``.

    Returns:
        ``out_indices``; ``None`` if the strides differ.
    """
    indices = old.get('out_indices')
    if not isinstance(indices, (list, tuple)) or not all(
            0 <= i < len(strides) for i in indices):
        return None
    same = [strides[i] for i in indices] == wanted
    return dict(out_indices=tuple(indices)) if same else None


def first_strides(backbone: dict, scope: str | None, strides: list[int],
                  wanted: list[int]) -> dict | None:
    """Options with which a backbone has a detector's first strides.

    Args:
        backbone: Config of the backbone.
        scope: Package in which the backbone's type is looked up.
        strides: Strides of all outputs that it can have.
        wanted: Strides of the outputs that the detector's neck uses.

    Returns:
        ``out_indices`` and ``stem_pool``, with as many of the wanted strides
        as possible; ``None`` if the first one is not among them.
    """
    found: dict | None = None
    for pool in _pools(backbone, scope):
        last = {stride * pool: i for i, stride in enumerate(strides)}
        indices = tuple(sorted({last[s] for s in wanted if s in last}))
        if wanted[0] in last and len(indices) > len(
                found['out_indices'] if found else ()):
            found = _options(indices, pool)
    return found


def last_strides(backbone: dict, scope: str | None, strides: list[int],
                 wanted: list[int]) -> dict:
    """Options with which a backbone's last output has a segmentor's stride,
    or, if its stem can be pooled, the nearest smaller one.

    Args:
        backbone, scope, strides: See :func:`first_strides`.
        wanted: Strides of the outputs of the segmentor's own backbone.

    Returns:
        ``out_indices`` and ``stem_pool``.
    """
    pools = _pools(backbone, scope)
    pool = max((p for p in pools if p * strides[-1] <= wanted[-1]),
               default=pools[0])
    count = len(strides)
    indices = tuple(range(max(0, count - len(wanted)), count))
    last = {stride * pool: i for i, stride in enumerate(strides)}
    # A dilated backbone has the stride of its last output several times. Its
    # counterpart here is the last output, not the one of that stride.
    if len(set(wanted)) == len(wanted) and set(wanted) <= set(last):
        indices = tuple(last[s] for s in wanted)
    return _options(indices, pool)


def _options(indices: tuple[int, ...], pool: int) -> dict:
    return dict(out_indices=indices, **(dict(stem_pool=pool) if pool > 1
                                        else {}))


def _pools(backbone: dict, scope: str | None) -> tuple[int, ...]:
    """Values of ``stem_pool`` that a backbone accepts; 1 is no pooling."""
    return POOLS if 'stem_pool' in parameters(backbone, scope) else (1, )


def all_strides(backbone: dict, scope: str | None) -> list[int]:
    """Strides of all outputs that a backbone can have."""
    every = dict(out_indices=tuple(range(num_outputs(backbone, scope))))
    # Some, such as HRNet, give all outputs and have no such option.
    return [stride for stride, _ in levels(
        with_accepted(backbone, every, scope), scope)]


def neck_levels(neck: dict, backbone: dict,
                scope: str | None) -> list[tuple[int, int]] | None:
    """Stride and number of channels of each output of a neck behind a
    backbone; ``None`` if the neck cannot have such inputs."""
    inputs = levels(backbone, scope)
    try:
        outputs = _shapes(
            lambda: build_network(offline(dict(neck)), scope, 'model.neck'),
            lambda: tuple(
                torch.zeros(1, width, _SIDE // stride, _SIDE // stride)
                for stride, width in inputs))
    except (AssertionError, ValueError, IndexError, RuntimeError):
        return None
    return [(round(_SIDE / shape[-1]), shape[1]) for shape in outputs]


@torch.no_grad()
def _shapes(build: Callable[[], nn.Module],
            make_input: Callable[[], Any]) -> list[torch.Size]:
    """Shapes of a network's outputs, in evaluation mode."""
    def run() -> list[torch.Size]:
        network = build()
        network.eval()  # not chained: it returns None in these toolboxes
        return [output.shape for output in network(make_input())]

    return on_meta(run)


def num_outputs(backbone: dict, scope: str | None) -> int:
    """The largest number of outputs that a backbone can have."""
    def can_have(count: int) -> bool:
        try:
            outline(dict(backbone, out_indices=tuple(range(count))), scope)
        except (AssertionError, ValueError, IndexError, TypeError):
            return False
        return True

    # A backbone with n outputs can have fewer, so bisection finds n.
    return 1 + bisect.bisect_left(
        range(2, _MOST_OUTPUTS), True, key=lambda n: not can_have(n))
