"""Outputs of teachers that are computed once and read again."""

from .executor import StoredExecutor
from .identity import StoredViews

__all__ = ['StoredExecutor', 'StoredViews']
