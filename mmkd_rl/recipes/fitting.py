"""Checks whether a trained backbone's weights fit a backbone's config."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from mmkd_rl.export.trained import TrainedBackbone
from mmkd_rl.teachers.loading import build_network, init_untrained, offline

#: Options of a backbone on which names and shapes of weights do not depend.
TRAINING_OPTIONS = (
    'type', 'init_cfg', 'pretrained', 'frozen_stages', 'norm_eval', 'with_cp',
    'out_indices', 'norm_cfg', 'drop_path_rate', 'dilations', 'strides',
    'contract_dilation', 'num_classes')
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
    one grey image of 224x224 pixels."""
    network, side = _built(backbone, scope), 224
    network.eval()  # not chained: it returns None in these toolboxes
    return [(side // level.shape[-1], level.shape[1])
            for level in network(torch.zeros(1, 3, side, side))]


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
