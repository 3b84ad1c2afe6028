"""What a data set's pipeline does to images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmkd_rl.teachers.normalization import Normalization


def transforms_in(dataset: Any) -> Iterator[Any]:
    """The steps of a data set's pipeline, also of a data set inside others."""
    own = getattr(dataset, 'pipeline', None)
    inner = [data for data in (getattr(dataset, 'dataset', None),
                               *(getattr(dataset, 'datasets', None) or ())[:1])
             if data is not None]
    # Some wrappers show the pipeline of the data set in them as theirs.
    if not any(getattr(data, 'pipeline', None) is own for data in inner):
        yield from getattr(own, 'transforms', None) or ()
    for data in inner:
        yield from transforms_in(data)


def pipeline_normalization(dataset: Any) -> Normalization | None:
    """The normalisation in a pipeline, for images on the scale of 0 to 255:
    ``Normalize`` of MMCV, torchvision and Albumentations, and the scale of
    torchvision's ``ToTensor``; ``None`` without one."""
    found = None
    for step in transforms_in(dataset):
        own = _step(step)
        if own is not None:
            found = own if found is None else found.then(own)
    return found


def _step(step: Any) -> Normalization | None:
    kind = type(step).__name__
    if kind in ('Albumentations', 'Albu'):
        for part in getattr(getattr(step, 'aug', None), 'transforms', ()):
            if type(part).__name__ == 'Normalize':
                return Normalization(
                    tuple(float(m) * part.max_pixel_value for m in part.mean),
                    tuple(float(s) * part.max_pixel_value for s in part.std),
                    False)
    if kind == 'TorchVisonTransformWrapper':  # as MMPretrain spells it
        return _step(step.t)
    if kind == 'ToTensor':
        return Normalization((0., ) * 3, (255., ) * 3, False)
    if kind == 'NumpyToPIL':
        return Normalization((0., ) * 3, (1., ) * 3,
                             bool(getattr(step, 'to_rgb', False)))
    if kind == 'Normalize' and hasattr(step, 'mean'):
        return Normalization(tuple(map(float, step.mean)),
                             tuple(map(float, step.std)),
                             bool(getattr(step, 'to_rgb', False)))
    return None
