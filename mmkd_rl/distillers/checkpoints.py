"""Renames weights when a distilled model loads a checkpoint.

Names in the model are those of the plain student, and ``distillation.*``. Two
kinds of names are changed:

- Those of 0.1's first layout, in which the distiller was a module around the
  student (``student.*``, ``projectors.*``, ``weighting.*``).
- Some models (MMPretrain's wrappers of timm and transformers) put a prefix
  before every name that they load. It is removed before ``distillation.*``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_OLD = 'student.'


class NameHooks:
    """Hooks on a distilled model that rename weights before they are loaded.

    Args:
        child: The model's ``distillation``.
        feature_term: Index of the first term that reads features.
    """

    def __init__(self, child: nn.Module, feature_term: int) -> None:
        self._child, self._feature_term = child, feature_term

    def attach(self, model: nn.Module) -> tuple[RemovableHandle, ...]:
        """Register the hooks before and after the model's own load hooks."""
        first = model.register_load_state_dict_pre_hook(self._rename_old)
        # There is no public way to be called before the model's own hooks.
        hooks = cast(OrderedDict, model._load_state_dict_pre_hooks)
        hooks.move_to_end(first.id, last=False)
        return first, model.register_load_state_dict_pre_hook(
            self._take_prefix_away)

    def _rename_old(self, model: nn.Module, state: dict[str, Tensor],
                    prefix: str, *args: Any) -> None:
        if hasattr(model, 'student') or not any(
                n.startswith(prefix + _OLD) for n in state):
            return
        print_log(
            "the checkpoint has 0.1's first layout (student.*); its weights "
            'are renamed to those of the plain student', 'current')
        for name in list(state):
            if name.startswith(prefix):
                new = self._new_name(name[len(prefix):])
                state[prefix + new] = state.pop(name)

    def _new_name(self, name: str) -> str:
        """A weight's name in the present layout."""
        if name.startswith(_OLD):
            return name.removeprefix(_OLD)
        first, _, rest = name.partition('.')
        if first == 'weighting':
            return f'distillation.{name}'
        if first in ('projectors', 'feature_loss'):
            place = f'distillation.terms.{self._feature_term}'
            if first == 'feature_loss':
                return f'{place}.{rest}'
            teacher, _, rest = rest.partition('.')
            # The old layout had one level only.
            return f'{place}.projectors.{teacher}.0.{rest}'
        return name

    def _take_prefix_away(self, model: nn.Module, state: dict[str, Tensor],
                          prefix: str, *args: Any) -> None:
        for own in self._child.state_dict():
            ending = f'.distillation.{own}'
            right = f'{prefix}distillation.{own}'
            if right in state:
                continue
            found = [n for n in state
                     if n.startswith(prefix) and n.endswith(ending)]
            for name in found:
                state[right] = state.pop(name)
