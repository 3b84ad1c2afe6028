"""Reads a trained backbone from a run, a checkpoint or an export."""

from __future__ import annotations

import os
from dataclasses import dataclass

from torch import Tensor

from mmkd_rl.export.description import student_configs
from mmkd_rl.export.student import plain_student
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.state_dicts import read_weights

#: Heads of detectors and segmentors.
_DENSE = {'bbox_head', 'decode_head', 'mask_head', 'panoptic_head',
          'query_head', 'roi_head', 'rpn_head', 'seg_head'}
_PREFIXES = ('backbone.', 'student.backbone.')


@dataclass(frozen=True)
class TrainedBackbone:
    """Weights of a backbone, and its configs.

    Attributes:
        path: Path of the file.
        prefix: Prefix of the backbone's weights in the file.
        weights: Weights by their names in the backbone.
        config: Config of the backbone; ``None`` if the file has none.
        preprocessor: Config of the data preprocessor; ``None`` if the file
            has none.
    """
    path: str
    prefix: str
    weights: dict[str, Tensor]
    config: dict | None
    preprocessor: dict | None


def read_trained(source: str | os.PathLike, key: str) -> TrainedBackbone:
    """Read the backbone of a classifier.

    Args:
        source: Work directory of a run, a checkpoint, or an export.
        key: Option of the user, for messages.

    Raises:
        FileNotFoundError: No such file, or a folder without a checkpoint.
        ValueError: Not a checkpoint, or one without a classifier's backbone.
    """
    path = checkpoint_io.last_checkpoint(os.fspath(source), key)
    content = checkpoint_io.load(path, key)
    given = read_weights(content, f'{key}={path!r}')
    state = plain_student(given)
    dense = sorted(_DENSE & {n.split('.')[0] for n in state})
    if dense:
        raise ValueError(
            f'{key}={path!r} is the checkpoint of a detector or a segmentor '
            f'(it has {", ".join(dense)}); give that of the classifier whose '
            'backbone it shall start from, or load_from for the whole model')
    if not any(n.startswith('backbone.') for n in state):
        names = ', '.join(list(state)[:3])
        raise ValueError(
            f'{key}={path!r} has no weights named "backbone.*" (but {names}, '
            '...); tools/model_converters/convert.py renames those of '
            'torchvision and timm')
    weights = {n.removeprefix('backbone.'): t for n, t in state.items()
               if n.startswith('backbone.')}
    # As MMEngine's own reader needs it, if the names in the file allow that.
    prefix = next((p for p in _PREFIXES[::-1] if any(
        n.startswith(p) for n in given)), 'backbone.')
    config, preprocessor = student_configs(content.get('meta') or {})
    return TrainedBackbone(path, prefix, weights, config, preprocessor)
