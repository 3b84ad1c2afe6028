"""Lets augmented views of one image share its decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.dataset import Compose


def decode_once(dataset: Any) -> None:
    """Let views of an image that are read one after the other share its
    decoding. Data sets whose pipeline does not begin with
    ``LoadImageFromFile`` are left as they are."""
    pipeline = getattr(dataset, 'pipeline', None)
    steps = getattr(pipeline, 'transforms', None)
    if isinstance(pipeline, Compose) and steps and type(
            steps[0]).__name__ == 'LoadImageFromFile':
        steps[0] = LastImage(steps[0])


class LastImage:
    """A transform that reads an image, and remembers the last one.

    Args:
        load: The transform.
    """

    def __init__(self, load: Callable[[dict], dict | None]) -> None:
        self._load = load
        self._path: str | None = None
        self._read: dict | None = None

    def __call__(self, results: dict) -> dict | None:
        """Results with a copy of the image, [H, W, C]."""
        path = results.get('img_path')
        if path is None:
            return self._load(results)
        if path != self._path or self._read is None:
            before = dict(results)
            loaded = self._load(results)
            if loaded is None:
                return None
            self._path, self._read = path, {
                k: v for k, v in loaded.items()
                if k not in before or v is not before[k]}
        return {**results, **{
            k: v.copy() if isinstance(v, np.ndarray) else v
            for k, v in self._read.items()}}

    def __repr__(self) -> str:
        return repr(self._load)
