"""The changes of MMEngine that our tools and builders need.

Importing ``mmkd_rl`` registers our parts and leaves MMEngine as it is for
other code of the process. The tools call :func:`patch_mmengine`, and so does
whatever builds a distillation or a Knowledge Flow, since both need it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import mmengine.runner.activation_checkpointing as checkpointing
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import register_backend
from mmengine.runner import CheckpointLoader
from torch.utils.checkpoint import checkpoint

from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.atomic_backend import AtomicLocalBackend


def patch_mmengine() -> None:
    """Mend four things in MMEngine, for this process; again: no effect.

    - Local files are written whole or not at all: a run that is killed while
      it saves leaves no cut checkpoint under the final name.
    - Checkpoints in files and at addresses are read by
      :func:`checkpoint_io.load`, for ``load_from``, ``resume`` and
      ``init_cfg``, too. MMEngine's own reader falls back to unpickling
      anything where the safe way fails, and a pickle can run code.
    - ``activation_checkpointing`` uses PyTorch's non-reentrant way. In
      MMEngine's reentrant one a module that is fed with images, which need no
      gradient, gets none for its own weights (``['backbone']`` trains no
      backbone), and a tap inside of it reads a tensor without gradient.
    - ``mmseg::...`` is read from whichever distribution provides ``mmseg``.
      MMEngine looks for one named ``mmsegmentation`` and would pip-install it
      over the OneDL one.
    """
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    CheckpointLoader.register_scheme(('', 'http://', 'https://'),
                                     load_from_safe, force=True)
    checkpointing.wrap_forward = _wrap_forward
    try:
        distribution(MODULE2PACKAGE['mmseg'])
    except PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def load_from_safe(filename: str, map_location: Any = None) -> Any:
    """A loader of MMEngine's, which logs a part of its name ("safe")."""
    return checkpoint_io.load(filename, map_location=map_location)


def _wrap_forward(forward: Callable) -> Callable:

    @wraps(forward)
    def wrapper(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapper
