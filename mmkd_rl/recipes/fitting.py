"""Checks whether a trained backbone's weights fit a backbone's config."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from mmkd_rl.backbones.base import POOLS
from mmkd_rl.export.trained import TrainedBackbone
from mmkd_rl.teachers.loading import build_network, init_untrained, offline

#: Options of a backbone on which names and shapes of weights do not depend.
TRAINING_OPTIONS = (
    'type', 'init_cfg', 'pretrained', 'frozen_stages', 'norm_eval', 'with_cp',
    'out_indices', 'norm_cfg', 'drop_path_rate', 'dilations', 'strides',
    'contract_dilation', 'num_classes')
#: Side of the image with which strides are found, pixels.
_SIDE = 256
#: More outputs than any backbone of the toolboxes has.
_MOST_OUTPUTS = 12
#: An output may have a norm of its own, which a classifier lacks.
_NORM_OF_OUTPUT = re.compile(r'norm\d+\.')


def with_start(backbone: dict, trained: TrainedBackbone) -> dict:
    """A backbone's config whose initial weights are the trained ones."""
    return {**offline(dict(backbone)), 'init_cfg': dict(
        type='Pretrained', checkpoint=trained.path, prefix=trained.prefix)}


def misfit(backbone: dict, trained: TrainedBackbone,
           scope: str | None) -> str:
    """Describe why trained weights do not fit a backbone.

    The backbone is built and initialised, because some backbones of
    MMSegmentation and MMDetection read files in their own way and leave out,
    without an error, what they do not find.

    Args:
        backbone: Config of the backbone.
        trained: The weights.
        scope: Package in which the backbone's type is looked up.

    Returns:
        The description; an empty string if all weights fit and arrive.
    """
    network = _built(backbone, scope)
    own = {n: t.shape for n, t in network.state_dict().items()
           if not n.endswith('num_batches_tracked')}
    file = {n: t for n, t in trained.weights.items()
            if not n.endswith('num_batches_tracked')}
    missing = [n for n in own
               if n not in file and not _NORM_OF_OUTPUT.match(n)]
    shapes = [n for n in own if n in file and own[n] != file[n].shape]
    extra = [n for n in file if n not in own]
    if missing or shapes or extra:
        return ', '.join(
            f'{len(names)} of {count} weights {what} ({_some(names)})'
            for names, count, what in (
                (missing, len(own), 'are not in the file'),
                (shapes, len(own), 'have another shape there'),
                (extra, len(file), 'of the file are not in it')) if names)
    started = _built(with_start(backbone, trained), scope, keep=True)
    try:
        init_untrained(started)
    except (KeyError, RuntimeError, AssertionError) as error:
        return (f'{type(network).__name__} cannot read the file '
                f'({type(error).__name__}: {error})')
    values = started.state_dict()
    left = [n for n in file if not torch.equal(values[n], file[n])]
    return '' if not left else (
        f'{type(network).__name__} does not read {len(left)} of its '
        f'{len(own)} weights from the file ({_some(left)})')


@torch.no_grad()
def levels(backbone: dict, scope: str | None) -> list[tuple[int, int]]:
    """Stride and number of channels of each output of a backbone, found with
    one grey image of 256x256 pixels.

    Raises:
        ValueError: The outputs are vectors, not feature maps.
    """
    network, side = _built(backbone, scope), _SIDE
    network.eval()  # not chained: it returns None in these toolboxes
    outputs = network(torch.zeros(1, 3, side, side))
    if any(output.dim() != 4 for output in outputs):
        raise ValueError(f'{in_words(backbone)} has vectors as outputs; a '
                         'detector or segmentor needs feature maps')
    return [(side // level.shape[-1], level.shape[1]) for level in outputs]


def as_maps(backbone: dict, scope: str | None) -> dict:
    """The config of a backbone whose outputs are feature maps; a classifier's
    transformer gives its class token."""
    return dict(backbone, out_type='featmap') if has_attribute(
        backbone, scope, 'out_type') else backbone


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
    or the nearest smaller one.

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
    return POOLS if has_attribute(backbone, scope, 'stem_pool') else (1, )


def all_strides(backbone: dict, scope: str | None) -> list[int]:
    """Strides of all outputs that a backbone can have."""
    count = num_outputs(backbone, scope)
    return [stride for stride, _ in levels(
        dict(backbone, out_indices=tuple(range(count))), scope)]


@torch.no_grad()
def neck_strides(neck: dict, backbone: dict,
                 scope: str | None) -> list[int] | None:
    """Strides of a neck's outputs behind a backbone; ``None`` if the neck
    cannot have such inputs."""
    side = _SIDE
    maps = [torch.zeros(1, width, side // stride, side // stride)
            for stride, width in levels(backbone, scope)]
    try:
        network = build_network(offline(dict(neck)), scope, 'model.neck')
        return [round(side / level.shape[-1]) for level in network(maps)]
    except (AssertionError, ValueError, IndexError, RuntimeError):
        return None


def num_outputs(backbone: dict, scope: str | None) -> int:
    """The largest number of outputs that a backbone can have."""
    for count in range(_MOST_OUTPUTS, 1, -1):
        try:
            _built(dict(backbone, out_indices=tuple(range(count))), scope)
        except (AssertionError, ValueError, IndexError, TypeError):
            continue
        return count
    return 1


def has_attribute(backbone: dict, scope: str | None, name: str) -> bool:
    """Whether a backbone keeps an option of this name."""
    return hasattr(_built(backbone, scope), name)


def in_words(backbone: dict) -> str:
    """A backbone's type and the options on which its weights depend."""
    options: dict[str, Any] = {
        k: v for k, v in backbone.items()
        if k not in TRAINING_OPTIONS and not isinstance(v, dict)}
    return f'{backbone["type"]}(' + ', '.join(
        f'{k}={v!r}' for k, v in options.items()) + ')'


def _built(backbone: dict, scope: str | None,
           keep: bool = False) -> nn.Module:
    """Build a backbone; without its initial weights unless ``keep``."""
    cfg = dict(backbone) if keep else offline(dict(backbone))
    norm = cfg.get('norm_cfg')
    if isinstance(norm, dict) and norm.get('type') == 'SyncBN':
        # Synchronised batch norm needs a process group.
        cfg['norm_cfg'] = dict(norm, type='BN')
    return build_network(cfg, scope, 'model.backbone')


def _some(names: list[str]) -> str:
    return names[0] + (', ...' if len(names) > 1 else '')
