"""Settings of necks and heads that follow from a backbone's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmkd_rl.recipes.levels import levels, neck_levels

_HEADS = ('decode_head', 'auxiliary_head', 'head', 'panoptic_head')


@dataclass(frozen=True)
class Setting:
    """A setting of a model.

    Attributes:
        path: Path below ``model``, such as ``decode_head.in_channels``.
        value: The value.
    """
    path: str
    value: Any

    def __str__(self) -> str:
        """As in ``--cfg-options``, without spaces."""
        return f'model.{self.path}={self.value}'.replace(' ', '')

    def apply(self, model: Any) -> None:
        """Write the setting into a model's config, in place."""
        *folders, name = self.path.split('.')
        for folder in folders:
            model = model[int(folder) if folder.isdigit() else folder]
        model[name] = self.value


def widths(model: dict, backbone: dict, scope: str | None) -> list[Setting]:
    """Settings of neck and heads that a backbone's outputs require.

    Args:
        model: Config of the model.
        backbone: Config of the backbone.
        scope: Package in which types are looked up.

    Returns:
        The settings that are not as required.
    """
    channels = [width for _, width in levels(backbone, scope)]
    found: list[Setting] = []
    neck = model.get('neck')
    if isinstance(neck, dict):
        new = fitted_neck(neck, backbone, scope)
        found += [Setting(f'neck.{name}', new[name]) for name in new
                  if _as_list(new[name]) != _as_list(neck[name])]
        # Heads see the neck's outputs.
        channels = [width for _, width in neck_levels(
            new, backbone, scope) or ()]
    elif isinstance(neck, list):
        return found + _of_list(neck, backbone, scope)
    for path, head in _heads(model) if channels else ():
        found += [Setting(f'{path}.{name}', value)
                  for name, value in _of_head(head, channels).items()
                  if _as_list(head.get(name)) != _as_list(value)]
    return found


def fitted_neck(neck: dict, backbone: dict, scope: str | None) -> dict:
    """The config of a neck with a backbone's widths."""
    channels = [width for _, width in levels(backbone, scope)]
    new, given = dict(neck), neck.get('in_channels')
    if isinstance(given, (list, tuple)):
        # SSDNeck compares it with a tuple.
        new['in_channels'] = type(given)(channels)
    elif isinstance(given, int):
        new['in_channels'] = channels[-1]
    if isinstance(neck.get('embed_dim'), int):
        new['embed_dim'] = channels[-1]
    return new


def _of_list(necks: list, backbone: dict, scope: str | None) -> list[Setting]:
    """Settings of the first of several necks; its outputs stay as they are."""
    new = fitted_neck(necks[0], backbone, scope)
    return [Setting(f'neck.0.{name}', new[name]) for name in new
            if _as_list(new[name]) != _as_list(necks[0][name])]


def _heads(model: dict) -> Iterator[tuple[str, dict]]:
    """Path and config of each head, also of those in lists."""
    for name in _HEADS:
        heads = model.get(name)
        if isinstance(heads, dict):
            yield name, heads
        elif isinstance(heads, list):
            for i, head in enumerate(heads):
                yield f'{name}.{i}', head


def _of_head(head: dict, channels: list[int]) -> dict[str, Any]:
    """Options of a head that takes maps with these widths."""
    found: dict[str, Any] = {}
    given, index = head.get('in_channels'), head.get('in_index', -1)
    if isinstance(given, int) and isinstance(index, int):
        index = min(index, len(channels) - 1)
        found['in_channels'] = channels[index]
        if 'in_index' in head:
            found['in_index'] = index
    elif isinstance(given, (list, tuple)):
        # Several maps, each with a layer of its own.
        indices = list(index) if isinstance(index, (list, tuple)) else []
        if not indices or max(indices) >= len(channels):
            indices = list(range(len(channels)))
        found['in_channels'] = [channels[i] for i in indices]
        if 'in_index' in head:
            found['in_index'] = indices
    if isinstance(head.get('c1_in_channels'), int):
        # DeepLabV3+'s decoder takes the first output, too.
        found['c1_in_channels'] = channels[0]
    return found


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
