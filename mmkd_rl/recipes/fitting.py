"""Checks whether a trained backbone's weights fit a backbone's config."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_rl.backbones.base import POOLS
from mmkd_rl.export.trained import TrainedBackbone
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.loading import build_network, init_untrained, offline
from mmkd_rl.utils.configs import class_name

T = TypeVar('T')
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
    network = _outline(backbone, scope)
    if text := name_misfit(network, trained):
        return text
    started = _built(with_start(backbone, trained), scope, keep=True)
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
    missing = [n for n in own
               if n not in file and not _NORM_OF_OUTPUT.match(n)]
    shapes = [n for n in own if n in file and own[n].shape != file[n].shape]
    extra = [n for n in file if n not in own and not _NORM_OF_MEAN.match(n)]
    return ', '.join(
        f'{len(names)} of {count} weights {what} ({_some(names)})'
        for names, count, what in (
            (missing, len(own), 'are not in the file'),
            (shapes, len(own), 'have another shape there'),
            (extra, len(file), 'of the file are not in it')) if names)


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
    dilated = {**new, **accepted({**options, 'type': new['type']}, scope)}
    fits = not name_misfit(_outline(dilated, scope), trained)
    return dilated if fits else new


def _weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of a state dict without counters of batch normalisation."""
    return {name: tensor for name, tensor in state.items()
            if not name.endswith('num_batches_tracked')}


def levels(backbone: dict, scope: str | None) -> list[tuple[int, int]]:
    """Stride and number of channels of each output of a backbone, found with
    an image of its ``img_size``, or of 256x256 pixels.

    Raises:
        ValueError: The outputs are vectors, not feature maps.
    """
    side = backbone.get('img_size', _SIDE)
    side = side if isinstance(side, int) else side[0]
    outputs = _shapes(lambda: _built(backbone, scope),
                      lambda: torch.zeros(1, 3, side, side))
    if any(len(shape) != 4 for shape in outputs):
        raise ValueError(f'{in_words(backbone)} has vectors as outputs; a '
                         'detector or segmentor needs feature maps')
    return [(side // shape[-1], shape[1]) for shape in outputs]


def accepted(backbone: dict, scope: str | None) -> dict:
    """A backbone's config without the options that its class does not
    accept."""
    with MODELS.switch_scope_and_registry(scope) as registry:
        kind = registry.get(backbone['type'])
    names: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()
        names.update(p.name for p in parameters)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return {k: v for k, v in backbone.items() if k in names or k == 'type'}


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


def as_maps(backbone: dict, scope: str | None) -> dict:
    """The config of a backbone whose outputs are feature maps; a classifier's
    transformer gives its class token, timm's networks the last map alone."""
    if class_name(backbone['type']) == 'TIMMBackbone':
        return dict(backbone, features_only=True)
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

    return _on_meta(run)


def _outline(backbone: dict, scope: str | None) -> nn.Module:
    """A backbone of which only names, shapes and attributes are needed."""
    return _on_meta(lambda: _built(backbone, scope))


def _on_meta(compute: Callable[[], T]) -> T:
    """Return what a function returns that needs shapes of tensors alone.

    It runs on PyTorch's meta device, where nothing is computed, or, if a
    network cannot be built there, on the CPU.
    """
    try:
        with torch.device('meta'):
            return compute()
    except (NotImplementedError, RuntimeError):
        return compute()


def num_outputs(backbone: dict, scope: str | None) -> int:
    """The largest number of outputs that a backbone can have."""
    for count in range(_MOST_OUTPUTS, 1, -1):
        try:
            _outline(dict(backbone, out_indices=tuple(range(count))), scope)
        except (AssertionError, ValueError, IndexError, TypeError):
            continue
        return count
    return 1


def has_batch_norm(backbone: dict, scope: str | None) -> bool:
    """Whether a backbone has batch normalisation."""
    return any(isinstance(module, _BatchNorm)
               for module in _outline(backbone, scope).modules())


def has_attribute(backbone: dict, scope: str | None, name: str) -> bool:
    """Whether a backbone keeps an option of this name."""
    return hasattr(_outline(backbone, scope), name)


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
