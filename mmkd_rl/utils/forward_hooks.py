"""Helpers of hooks on a model's forward pass: read its arguments, and add
losses to those that the model returns in ``mode='loss'``.

OpenMMLab's models are all called as ``model(inputs, data_samples, mode)``, by
position or by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_POSITIONS = dict(inputs=0, data_samples=1, mode=2)


def argument(name: str, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """An argument of a call; ``None``: not given.

    Args:
        name: ``'inputs'``, ``'data_samples'`` or ``'mode'``.
        args: The call's positional arguments.
        kwargs: The call's keyword arguments.
    """
    index = _POSITIONS[name]
    return kwargs[name] if name in kwargs else \
        args[index] if len(args) > index else None


def computes_losses(args: tuple, kwargs: Mapping[str, Any]) -> bool:
    """Whether the call's mode is ``'loss'``."""
    return argument('mode', args, kwargs) == 'loss'


def sum_of_losses(losses: Mapping[str, Any]) -> Tensor:
    """The loss that MMEngine minimises: the sum of the means of all entries
    with ``loss`` in their names."""
    return sum(  # type: ignore[return-value]
        t.mean() for name, value in losses.items() if 'loss' in name
        for t in (value if isinstance(value, (list, tuple)) else [value]))


def with_losses(own: Mapping[str, Any],
                added: Mapping[str, Any]) -> dict[str, Any]:
    """Add losses to those of a model.

    The model's ``loss`` is renamed to ``loss_student``, because MMEngine logs
    the sum of all losses as ``loss``.

    Args:
        own: The model's losses.
        added: The losses to add.

    Raises:
        ValueError: A name is in both.
    """
    losses = {n: v for n, v in own.items() if n != 'loss'}
    if 'loss' in own:
        added = {'loss_student': own['loss'], **added}
    if both := losses.keys() & added.keys():
        raise ValueError(
            f"the student's own losses {sorted(both)} have names of "
            "distillation losses; rename them in the student's head")
    return {**losses, **added}
