"""MMEngine's ``activation_checkpointing`` without losing gradients.

MMEngine calls ``torch.utils.checkpoint`` in its old, reentrant way. A module
that is fed with images, which need no gradient, then gets none for its own
weights (``activation_checkpointing=['backbone']`` would train no
backbone, with no more than a warning), and a tap inside such a module reads a
tensor without gradient. The way that PyTorch recommends has neither fault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import mmengine.runner.activation_checkpointing as upstream
from torch.utils.checkpoint import checkpoint


def _wrap_forward(forward: Callable) -> Callable:

    @wraps(forward)
    def wrapper(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapper


def use_non_reentrant() -> None:
    """Make MMEngine's runner checkpoint in the recommended way."""
    upstream.wrap_forward = _wrap_forward
