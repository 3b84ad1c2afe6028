"""Report how many of a model's weights came from a file.

MMEngine loads the weights that fit and logs the names of the others; if none
fits, training begins from random weights, and testing tests random weights,
with exit code 0.
"""

from __future__ import annotations

import logging
from typing import Literal

from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.utils.state_dicts import named_as, read_weights

#: The user's option with the file.
Key = Literal['load_from', 'checkpoint', '--resume', 'init_cfg']
#: Smallest share of the weights that must come from the file, by its use. A
#: start from a part, such as another detector's backbone, is common; a tested
#: model must be complete.
_LEAST: dict[str, float] = {
    'load_from': 0.1, 'checkpoint': 1., '--resume': 1., 'init_cfg': 0.1}
_SHOWN = 4


def fitted(content: object, model: nn.Module, what: str) -> dict[str, Tensor]:
    """The weights in a checkpoint under a model's names, by the rules for
    teachers' files, see :mod:`.state_dicts`.

    Args:
        content: The checkpoint.
        model: The model.
        what: Option and file, for messages.

    Raises:
        ValueError: See :func:`read_weights` and :func:`named_as`.
    """
    own = model.state_dict()
    return named_as(read_weights(content, what), own,
                    [n for n in own if _counts(n, 'load_from')], what)


def watch_loading(model: nn.Module, key: Key, path: str) -> None:
    """Report the next load of a model's weights, which raises a ValueError if
    no weight of the model, or fewer than expected, come from the file.

    Args:
        model: The model.
        key: The user's option with the file.
        path: The file, for messages.
    """
    _Watch(model, key, path)


class _Watch:
    """Hooks on one load of a model's weights.

    Args:
        model: The model.
        key: See :data:`Key`.
        path: The file, for messages.
    """

    def __init__(self, model: nn.Module, key: str, path: str) -> None:
        self.key, self.path = key, path
        self.own = {
            n: tuple(t.shape)
            for n, t in model.state_dict().items() if _counts(n, key)
        }
        # Filled by the last load hook: some models rename weights.
        self.file: dict[str, tuple[int, ...]] = {}
        self._handles = [
            model.register_load_state_dict_pre_hook(self._before),
            model.register_load_state_dict_post_hook(self._after)
        ]

    def _before(self, model: nn.Module, state: dict[str, Tensor], prefix: str,
                *args) -> None:
        self.file = {n: tuple(t.shape) for n, t in state.items()}

    def _after(self, model: nn.Module, incompatible) -> None:
        for handle in self._handles:
            handle.remove()
        # Not the state_dict's names: a model may remove prefixes there and add
        # them when loading.
        shapes = {n: tuple(t.shape) for n, t in (*model.named_parameters(),
                                                 *model.named_buffers())
                  if _counts(n, self.key)}
        absent = shapes.keys() & incompatible.missing_keys
        other = {n: s for n, s in self.file.items()
                 if n in shapes and s != shapes[n]}
        came = len(self.own) - len(absent) - len(other)
        left_over = [n for n in incompatible.unexpected_keys
                     if _counts(n, self.key)]
        self._report(type(model).__name__, came, absent, other, left_over)

    def _report(self, name: str, came: int, absent: set[str],
                other: dict[str, tuple[int, ...]],
                left_over: list[str]) -> None:
        text = (f'{self.key} {self.path!r}: {came} of {len(self.own)} weights '
                f'of {name} came from the file')
        lacks = []
        if absent:
            lacks.append(f'{len(absent)} are not in it: {_some(absent)}')
        if other:
            lacks.append(f'{len(other)} have another shape: {_some(other)}')
        if lacks:
            text += '; ' + '; '.join(lacks)
        elif left_over:
            text += (f"; {len(left_over)} others in it are not the model's: "
                     f'{_some(left_over)}')
        if self.key == 'checkpoint' and left_over and not lacks:
            raise ValueError(
                f'{text}. A network with more weights computes something '
                'else; test it with its own config')
        if self.key == '--resume' and (lacks or any(
                n.startswith('distillation.') for n in left_over)):
            raise ValueError(
                f'{text}. A run goes on with the model that it began with; to '
                'start another one from its weights use load_from without '
                '--resume')
        if not came or came < _LEAST[self.key] * len(self.own):
            raise ValueError(
                f'{text}. Expected names such as {_some(self.own)}; the file '
                f'has {_some(self.file)}. Is it a checkpoint of this model?')
        print_log(text, 'current', logging.WARNING if lacks or left_over
                  else logging.INFO)


def _counts(name: str, key: str) -> bool:
    """Whether a weight should be in the file."""
    if name.endswith('num_batches_tracked') or \
            name.startswith('data_preprocessor.'):
        return False  # missing in old files, and constants
    parts = name.split('.')
    if key == 'checkpoint' and parts[0].startswith('auxiliary_head'):
        return False  # not used in tests
    return key == '--resume' or not (parts[0] == 'distillation'
                                     or 'knowledge_flow' in parts)


def _some(names) -> str:
    names = list(names) if isinstance(names, dict) else sorted(names)
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else
                                        '') if names else 'none'
