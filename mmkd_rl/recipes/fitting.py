"""Checks whether a trained backbone's weights fit a backbone's config."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_rl.export.trained import TrainedBackbone
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.loading import build_network, init_untrained, offline

T = TypeVar('T')
#: The user's option, for messages.
KEY = '--backbone-from'
#: Options of a backbone on which names and shapes of weights do not depend.
TRAINING_OPTIONS = (
    'type', 'init_cfg', 'pretrained', 'frozen_stages', 'norm_eval', 'with_cp',
    'out_indices', 'norm_cfg', 'drop_path_rate', 'dilations', 'strides',
    'contract_dilation', 'num_classes', 'stem_pool', 'channels_last')
#: An output may have a norm of its own, which a classifier lacks.
_NORM_OF_OUTPUT = re.compile(r'norm\d+\.')
#: A classifier may have a norm of the mean of its last map.
_NORM_OF_MEAN = re.compile(r'ln2\.')


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
    network = outline(backbone, scope)
    if text := name_misfit(network, trained):
        return text
    started = built(with_start(backbone, trained), scope, keep=True)
    try:
        init_untrained(started)
    except (KeyError, RuntimeError, AssertionError) as error:
        return (f'{type(network).__name__} cannot read the file '
                f'({type(error).__name__}: {error})')
    values = started.state_dict()
    left = [n for n, tensor in _weights(trained.weights).items()
            if n in values and not torch.equal(values[n], tensor)]
    return '' if not left else (
        f'{type(network).__name__} does not read {len(left)} of its '
        f'{len(_weights(values))} weights from the file ({_some(left)})')


def name_misfit(network: nn.Module, trained: TrainedBackbone) -> str:
    """Describe which names or shapes of trained weights are not those of a
    backbone; an empty string if there are none."""
    own, file = _weights(network.state_dict()), _weights(trained.weights)
    missing = [n for n in own if n not in file
               and not _NORM_OF_OUTPUT.match(n) and not _is_new(n, file)]
    shapes = [n for n in own if n in file and own[n].shape != file[n].shape]
    extra = [n for n in file if n not in own and not _NORM_OF_MEAN.match(n)]
    return ', '.join(
        f'{len(names)} of {count} weights {what} ({_some(names)})'
        for names, count, what in (
            (missing, len(own), 'are not in the file'),
            (shapes, len(own), 'have another shape there'),
            (extra, len(file), 'of the file are not in it')) if names)


def new_layers(backbone: dict, trained: TrainedBackbone,
               scope: str | None) -> str:
    """Describe the layers of a backbone that the student lacks, such as
    deformable convolutions and context blocks; ``''`` for none. Norms of
    outputs do not count."""
    own = _weights(outline(backbone, scope).state_dict())
    news = [n for n in own if n not in trained.weights
            and not _NORM_OF_OUTPUT.match(n)]
    return '' if not news else (
        f'{len(news)} of {len(own)} weights of the backbone are new, the '
        f'student has none: {_some(news)}')


def _is_new(name: str, file: dict[str, Tensor]) -> bool:
    """Whether a weight is of a layer inside a block that a file has, and not
    of a block that the file lacks, as in a deeper network; or of a layer of
    which the file has other weights."""
    def has(parts: list[str]) -> bool:
        prefix = '.'.join(parts) + '.'
        return any(n.startswith(prefix) for n in file)

    parts = name.split('.')
    blocks = [i for i, part in enumerate(parts[:-1]) if part.isdigit()]
    if any(has(parts[:i]) and not has(parts[:i + 1]) for i in blocks):
        return False
    return has(parts[:-1]) or any(has(parts[:i + 1]) for i in blocks)


def keep_dilation(new: dict, old: dict, trained: TrainedBackbone,
                  scope: str | None) -> dict:
    """Give a backbone the strides and dilations of a config's backbone.

    Args:
        new: Config of the backbone.
        old: Config of the config's backbone.
        trained: The backbone's weights.
        scope: Package in which types are looked up.

    Returns:
        ``new`` with ``strides`` and ``dilations`` of ``old``; unchanged if the
        backbone does not have these options, or has other weights with them.
    """
    options = {name: old[name] for name in ('strides', 'dilations')
               if name in old}
    dilated = with_accepted(new, options, scope)
    try:
        fits = not name_misfit(outline(dilated, scope), trained)
    except (AssertionError, ValueError, TypeError):  # of other lengths
        fits = False
    return dilated if fits else new


def _weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of a state dict without counters of batch normalisation."""
    return {name: tensor for name, tensor in state.items()
            if not name.endswith('num_batches_tracked')}


def parameters(backbone: dict,
               scope: str | None) -> dict[str, inspect.Parameter]:
    """Options that the class of a backbone accepts, by name; if its
    constructor passes others on, those of its base classes, too."""
    with MODELS.switch_scope_and_registry(scope) as registry:
        kind = registry.get(backbone['type'])
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        own = inspect.signature(base.__init__).parameters
        found = {**own, **found}
        if all(p.kind is not p.VAR_KEYWORD for p in own.values()):
            break
    if kind.__name__ == 'TIMMBackbone':  # passes it on to timm
        found['out_indices'] = inspect.Parameter(
            'out_indices', inspect.Parameter.KEYWORD_ONLY)
    return found


def accepted(backbone: dict, scope: str | None) -> dict:
    """A backbone's config without the options that its class does not
    accept."""
    names = parameters(backbone, scope)
    return {k: v for k, v in backbone.items() if k in names or k == 'type'}


def option(backbone: dict, name: str, scope: str | None) -> Any:
    """Value of a backbone's option, from its config or by default;
    ``inspect.Parameter.empty`` if its class does not have the option."""
    if backbone.get(name) is not None:
        return backbone[name]
    found = parameters(backbone, scope).get(name)
    return inspect.Parameter.empty if found is None else found.default


def with_accepted(backbone: dict, options: dict, scope: str | None) -> dict:
    """A backbone's config with those of some options that its class
    accepts."""
    return {**backbone, **accepted(
        {**options, 'type': backbone['type']}, scope)}


def name_in(name: str, full_name: str, scope: str | None) -> str:
    """The name of a class if a package has it, otherwise the full name.

    Args:
        name: Name of the class.
        full_name: The name with another package, such as ``mmpretrain.Name``.
        scope: The package.
    """
    with MODELS.switch_scope_and_registry(scope) as registry:
        registry.import_from_location()
        return name if name in registry.module_dict else full_name


def outline(backbone: dict, scope: str | None) -> nn.Module:
    """A backbone of which only names, shapes and attributes are needed."""
    return on_meta(lambda: built(backbone, scope))


def on_meta(compute: Callable[[], T]) -> T:
    """Return what a function returns that needs shapes of tensors alone.

    It runs on PyTorch's meta device, where nothing is computed, or, if a
    network cannot be built there, on the CPU.
    """
    try:
        with torch.device('meta'):
            return compute()
    except (NotImplementedError, RuntimeError):
        return compute()


def has_batch_norm(backbone: dict, scope: str | None) -> bool:
    """Whether a backbone has batch normalisation."""
    return any(isinstance(module, _BatchNorm)
               for module in outline(backbone, scope).modules())


def in_words(backbone: dict) -> str:
    """A backbone's type and the options on which its weights depend."""
    options: dict[str, Any] = {
        k: v for k, v in backbone.items()
        if k not in TRAINING_OPTIONS and not isinstance(v, dict)}
    return f'{backbone["type"]}(' + ', '.join(
        f'{k}={v!r}' for k, v in options.items()) + ')'


def built(backbone: dict, scope: str | None,
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
