"""Multi-teacher knowledge distillation for the OpenMMLab stack."""

from typing import Any

from mmengine.config.utils import MODULE2PACKAGE

from .version import __version__

# MMEngine resolves `_base_ = 'mmkd_rl::...'` and `type='mmkd_rl.X'` only for
# the packages that it lists here.
MODULE2PACKAGE.setdefault('mmkd_rl', 'mmkd_rl')

from . import registry  # noqa: E402

__all__ = ['__version__', 'distill', 'registry', 'with_backbone']


def __getattr__(name: str) -> Any:
    """Import the recipes only when used: they load OpenMMLab packages."""
    if name in ('distill', 'with_backbone'):
        from . import recipes
        return getattr(recipes, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
