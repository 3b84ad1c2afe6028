"""Modules that return more in training than in evaluation.

DDRNet and PIDNet return the map for the decode head alone in evaluation, and
in training also maps for auxiliary losses, before it or around it. Outputs are
probed in evaluation, so the element that is the same map in training is found
then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_rl.taps.tap import Tap


@torch.no_grad()
def find_elements(model: nn.Module, taps: Sequence[Tap],
                  run: Callable[[], Any]) -> None:
    """Set :attr:`Tap.in_training` of taps whose module returns one tensor in
    evaluation and several in training.

    A module is called again on its input of the probe with its own flag
    ``training`` set and its children in evaluation, so that the element is the
    same tensor, bit for bit. Only modules whose ``forward`` reads that flag
    are called again.

    Args:
        model: The network, in evaluation mode.
        taps: Its taps.
        run: Runs a forward pass; called once if a module reads its flag.

    Raises:
        ValueError: No element, or more than one, is the same tensor.
    """
    modules = {tap: model.get_submodule(tap.path) for tap in taps
               if tap.source == 'output'}
    modules = {tap: m for tap, m in modules.items() if _reads_flag(m)}
    if not modules:
        return
    calls: dict[nn.Module, tuple[tuple, dict, Any]] = {}
    handles = [
        module.register_forward_hook(
            lambda module, args, kwargs, output: calls.update(
                {module: (args, kwargs, output)}), with_kwargs=True)
        for module in modules.values()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    for tap, module in modules.items():
        if module in calls:
            tap.in_training = _element(tap, module, *calls[module])


def _element(tap: Tap, module: nn.Module, args: tuple, kwargs: dict,
             output: Any) -> int | None:
    """Index of a module's output of evaluation in that of training; ``None``:
    the module returns a tensor, or several, in both.

    Args:
        tap: The tap, for messages.
        module: The module.
        args: Its input in a forward pass.
        kwargs: Further input.
        output: Its output in that pass, in evaluation mode.

    Raises:
        ValueError: See :func:`find_elements`.
    """
    if not isinstance(output, Tensor):
        return None
    found = _in_training(module, args, kwargs)
    if not isinstance(found, (tuple, list)):
        return None
    same = [i for i, value in enumerate(found)
            if isinstance(value, Tensor) and torch.equal(value, output)]
    if len(same) != 1:
        raise ValueError(
            f'{tap.key}: {tap.path!r} returns one tensor in evaluation and '
            f'{len(found)} in training, and {len(same)} of them are the '
            'same one; tap a layer inside it')
    return same[0]


def _reads_flag(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(type(module).forward), '__code__', None)
    return code is not None and 'training' in code.co_names


def _in_training(module: nn.Module, args: tuple, kwargs: dict) -> Any:
    module.training = True
    try:
        return module.forward(*args, **kwargs)
    finally:
        module.training = False
