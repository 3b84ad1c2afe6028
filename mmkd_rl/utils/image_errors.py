"""Errors in a data set's pipeline, with the image's file."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from mmengine.dataset import Compose

from mmkd_rl.options import ConfigError


def name_files_of_errors() -> None:
    """Let an error in a pipeline name the step and the image's file: readers
    of images say only that the content is wrong. Repeated calls have no
    effect."""
    if hasattr(Compose.__call__, 'names_files'):
        return
    Compose.__call__ = _naming(Compose.__call__)  # type: ignore[method-assign]


def _naming(call: Callable) -> Callable:

    @wraps(call)
    def wrapper(self: Compose, data: Any) -> Any:
        path = data.get('img_path') if isinstance(data, dict) else None
        try:
            return call(self, data)
        except ConfigError:
            raise
        except Exception as error:
            if not isinstance(path, str):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f'the image {path!r} cannot be prepared '
                f'({type(error).__name__}: {reason[-1][:200]}); mend or '
                'remove it') from error

    wrapper.names_files = True  # type: ignore[attr-defined]
    return wrapper
