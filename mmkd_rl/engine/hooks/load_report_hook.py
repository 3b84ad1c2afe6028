"""Say how many of a model's weights came out of a checkpoint.

MMEngine loads what fits and logs the names of the rest; where nothing fits,
training begins at chance and testing tests noise, with exit code 0.
"""

from __future__ import annotations

import logging
from typing import Literal

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd_rl.distillers import check_outermost
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.options import Checked
from mmkd_rl.registry import HOOKS

#: Share of the weights that must come from the file, by what it is for. To
#: start from a part, such as another detector's backbone, is usual; what is
#: tested must be whole.
_LEAST: dict[str, float] = {
    'load_from': 0.1, 'checkpoint': 1., '--resume': 0.5}
_SHOWN = 4
_Key = Literal['load_from', 'checkpoint', '--resume']


@HOOKS.register_module()
class LoadReportHook(Checked, Hook):
    """Counts the weights that a checkpoint gives to the model.

    ``tools/train.py`` and ``tools/test.py`` register it. Of a distilled model
    the student's weights are counted; of a run that is resumed all.

    Args:
        key: What the user wrote the file under: ``'load_from'``,
            ``'checkpoint'`` (to be tested) or ``'--resume'``.

    Raises:
        ValueError: While loading: no weight of the model, or fewer than
            expected, came from the file.
    """

    # After hooks that change the checkpoint's names.
    priority = 'VERY_LOW'

    def __init__(self, key: _Key = 'load_from') -> None:
        self.key = key

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Called just before the weights go into the model: watch that."""
        _Watch(unwrapped(runner), self.key, str(runner._load_from))


def report_loading(runner: Runner, key: _Key) -> None:
    """Count the weights that are loaded, and see that the model is asked for
    what is to be distilled.

    Args:
        runner: Before it trains or tests.
        key: See :class:`LoadReportHook`.

    Raises:
        TypeError: A distillation that is not the model itself.
    """
    check_outermost(unwrapped(runner))
    runner.register_hook(LoadReportHook(key))


class _Watch:
    """Hooks on one load of a model's weights.

    Args:
        model: The model.
        key: See :class:`LoadReportHook`.
        path: The file, for messages.
    """

    def __init__(self, model: nn.Module, key: str, path: str) -> None:
        self.key, self.path = key, path
        self.own = {
            n: tuple(t.shape)
            for n, t in model.state_dict().items() if _counts(n, key)
        }
        # Some models rename what they load: the names of both sides are
        # those that the load itself arrives at.
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
        # Not the state_dict's names: a model may leave prefixes out there
        # that it puts in when it loads.
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
        if not came or came < _LEAST[self.key] * len(self.own):
            raise ValueError(
                f'{text}. Expected names such as {_some(self.own)}; the file '
                f'has {_some(self.file)}. Is it a checkpoint of this model?')
        print_log(text, 'current',
                  logging.WARNING if lacks else logging.INFO)


def _counts(name: str, key: str) -> bool:
    """Whether a weight is one that the file should have."""
    if name.endswith('num_batches_tracked') or \
            name.startswith('data_preprocessor.'):
        return False  # old files lack the first, the second are constants
    parts = name.split('.')
    if key == 'checkpoint' and parts[0].startswith('auxiliary_head'):
        return False  # of no use in a test
    return key == '--resume' or not (parts[0] == 'distillation'
                                     or 'knowledge_flow' in parts)


def _some(names) -> str:
    names = list(names) if isinstance(names, dict) else sorted(names)
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else
                                        '') if names else 'none'
