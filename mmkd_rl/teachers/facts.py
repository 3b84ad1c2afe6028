"""What a teacher's checkpoint says about its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.logging.history_buffer import HistoryBuffer
from torch import Tensor

from mmkd_rl.export.description import trained_preprocessor, trained_side
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.utils.state_dicts import digest

#: Parts of the names of main figures, of which the first is taken.
_FIGURES = ('top1', 'mIoU', 'bbox_mAP', 'mAP')


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says; ``None``: nothing.

    Attributes:
        classes: Names of the classes.
        normalization: Normalisation of the images.
        side: Shorter side of the training images, in pixels.
        figure: The last validation's main figure, ``'accuracy/top1 61.9'``.
        digest: See :func:`mmkd_rl.utils.state_dicts.digest`.
    """
    classes: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    side: int | None = None
    figure: str | None = None
    digest: str | None = None

    @classmethod
    def of(cls, content: Any,
           weights: Mapping[str, Tensor] | None = None) -> Facts:
        """The facts in a checkpoint of MMEngine or MMCV; none in others.

        Args:
            content: What was read from the file.
            weights: The weights in it; ``None``: there are none.
        """
        content = content if isinstance(content, dict) else {}
        meta, hub = (part if isinstance(part, dict) else {} for part in (
            content.get('meta'), content.get('message_hub')))
        return cls(_classes(meta), _normalization(meta), trained_side(meta),
                   _figure(hub), digest(weights) if weights else None)


def _classes(meta: dict) -> tuple[str, ...] | None:
    facts = meta.get('dataset_meta')
    names = facts.get('classes') if isinstance(facts, dict) else None
    names = meta.get('CLASSES') if names is None else names
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else None


def _normalization(meta: dict) -> Normalization | None:
    known = trained_preprocessor(meta)
    if not known or not isinstance(known.get('mean'), (list, tuple)):
        return None
    try:
        return Normalization.from_config(
            {k: v for k, v in known.items()
             if k in ('mean', 'std', 'to_rgb', 'bgr_to_rgb')}, 'checkpoint')
    except (ValueError, TypeError):
        return None


def _figure(hub: dict) -> str | None:
    scalars = hub.get('log_scalars')
    found = {n.removeprefix('val/'): buffer for n, buffer in (
        scalars.items() if isinstance(scalars, dict) else ())
        if n.startswith('val/') and 'time' not in n
        and isinstance(buffer, HistoryBuffer) and len(buffer.data[0])}
    name = next((n for key in _FIGURES for n in found if key in n),
                next(iter(found), None))
    return None if name is None else f'{name} {found[name].current():.4g}'
