"""The changes of MMEngine that our tools and builders need.

Importing ``mmkd_rl`` registers our parts and does not change MMEngine. The
tools, and the builders of distillation and Knowledge Flow, which need the
changes, call :func:`patch_mmengine`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import mmengine.runner.activation_checkpointing as checkpointing
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import register_backend
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from torch.utils.checkpoint import checkpoint

from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.atomic_backend import AtomicLocalBackend
from mmkd_rl.utils.image_errors import name_files_of_errors
from mmkd_rl.utils.pretrained import CheckedPretrainedInit


def patch_mmengine() -> None:
    """Change six things in MMEngine for this process; repeated calls have no
    effect.

    - Local files are written completely or not at all: a run that is killed
      while it saves leaves no truncated checkpoint under the final name.
    - Checkpoints in files and at URLs are read by :func:`checkpoint_io.load`,
      also for ``load_from``, ``resume`` and ``init_cfg``. MMEngine's own
      reader unpickles any content if the safe loader fails, and a pickle can
      run code.
    - An ``init_cfg`` of the type ``Pretrained`` from whose file no weight
      comes is an error, see :class:`CheckedPretrainedInit`.
    - ``activation_checkpointing`` uses PyTorch's non-reentrant version. With
      MMEngine's reentrant version the weights of a module get no gradient if
      its input, such as images, needs none (``['backbone']`` trains no
      backbone), and a tap inside it reads a tensor without gradient.
    - An error in a data set's pipeline names the image's file.
    - ``mmseg::...`` is read from whichever distribution provides ``mmseg``.
      MMEngine looks for one named ``mmsegmentation`` and would pip-install it
      over the OneDL one.
    """
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    CheckpointLoader.register_scheme(
        ('', 'http://', 'https://', 'file://', 'torchvision://',
         'open-mmlab://', 'openmmlab://', 'mmcls://'),
        load_from_safe, force=True)
    WEIGHT_INITIALIZERS.register_module('Pretrained', force=True,
                                        module=CheckedPretrainedInit)
    name_files_of_errors()
    checkpointing.wrap_forward = _wrap_forward
    try:
        distribution(MODULE2PACKAGE['mmseg'])
    except PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def load_from_safe(filename: str, map_location: Any = None) -> Any:
    """Loader for MMEngine, which logs the end of its name ("safe")."""
    return checkpoint_io.load(filename, map_location=map_location)


def _wrap_forward(forward: Callable) -> Callable:

    @wraps(forward)
    def wrapper(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapper
