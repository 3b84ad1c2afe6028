"""Multi-teacher knowledge distillation for the OpenMMLab stack."""

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE

from .version import __version__

# MMEngine resolves `_base_ = 'mmkd_rl::...'` and `type='mmkd_rl.X'` only for
# the packages that it lists here.
MODULE2PACKAGE.setdefault('mmkd_rl', 'mmkd_rl')

# MMEngine looks for a distribution of this name and, in `mmengine.hub`, would
# pip-install it over the OneDL one that provides the same module.
try:
    distribution(MODULE2PACKAGE['mmseg'])
except PackageNotFoundError:
    MODULE2PACKAGE['mmseg'] = 'mmseg'

from . import registry  # noqa: E402
from .utils import atomic_backend  # noqa: E402

# A checkpoint under its final name is always whole.
atomic_backend.register()

__all__ = ['__version__', 'distill', 'registry']


def __getattr__(name: str) -> Any:
    """Import what reads configs of other packages when it is asked for."""
    if name == 'distill':
        from .recipes import distill
        return distill
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
