"""Distil any model of the three toolboxes by its features alone."""

from __future__ import annotations

from typing import Any, Literal

import torch
from mmpretrain.models.classifiers import BaseClassifier
from torch import nn

from mmkd_rl.records import Batch, Truth
from mmkd_rl.registry import TASKS
from mmkd_rl.taps.tap import ALL
from mmkd_rl.tasks.base import TapConfig, Task, neck_or_backbone
from mmkd_rl.tasks.classification import classifier_feature


@TASKS.register_module()
class FeatureTask(Task):
    """Networks whose features are distilled, whatever they are trained for.

    Defaults: features are all levels of the neck, or of the backbone if there
    is no neck; of classifiers they are those of :class:`ClassificationTask`.
    Other networks are run only up to these (``extract_feat``), so that no
    boxes or masks are computed for a teacher, and two-stage and DETR models
    need no annotations. Padding, found from ``img_shape`` and
    ``batch_input_shape`` or ``pad_shape`` of the samples, is left out of all
    means.

    Args:
        levels: ``'all'`` levels, or the ``'last'`` alone, which networks with
            different numbers of levels have in common.
    """

    projector = dict(norm=False)
    may_have_boxes = True

    def __init__(self, levels: Literal['all', 'last'] = 'all') -> None:
        self.index = ALL if levels == 'all' else -1

    def feature_taps(self, model: nn.Module,
                     key: str) -> TapConfig | list[TapConfig]:
        """The levels of the neck, or of the backbone; of a classifier, whose
        neck averages over space, see :func:`classifier_feature`.

        Raises:
            ValueError: The model has neither.
        """
        if not isinstance(model, BaseClassifier):
            return neck_or_backbone(model, key, self.index)
        tap = classifier_feature(model, key)
        return tap if tap != 'backbone' else dict(path=tap, index=self.index)

    def logit_taps(self, model: nn.Module,
                   key: str) -> TapConfig | list[TapConfig]:
        """None: logits are not read."""
        return []

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """Run backbone and neck, or the whole network if it is a classifier,
        whose tapped layer may be in its head, or has no such parts."""
        if not isinstance(model, BaseClassifier) and \
                _part(model, 'backbone') and hasattr(model, 'extract_feat'):
            return model.extract_feat(batch.images)
        return super().run(model, batch)

    def truth(self, batch: Batch) -> Truth:
        """No labels; padding is not valid."""
        images = batch.images
        size = (int(images.shape[2]), int(images.shape[3]))
        shapes = [_shape(s, size) for s in batch.samples] or \
            [size] * len(images)
        # One transfer to the device for the whole batch.
        # Sizes are not exact in half precision.
        shapes_B2 = torch.tensor(shapes, dtype=torch.float32,
                                 device=images.device)
        if all(shape == size for shape in shapes):
            return Truth(None, None, shapes_B2.prod(1))
        rows_BH, columns_BW = (
            torch.arange(length, device=images.device) < shapes_B2[:, i, None]
            for i, length in enumerate(size))
        valid_BHW = (rows_BH[:, :, None] & columns_BW[:, None]).to(images)
        return Truth(None, valid_BHW, shapes_B2.prod(1))


def _part(model: nn.Module, name: str) -> bool:
    return isinstance(getattr(model, name, None), nn.Module)


def _shape(sample: object, size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of an image before it was padded. Only used if the sample also
    has the padded size: otherwise the image may have been resized since."""
    info = getattr(sample, 'metainfo', {})
    shape = info.get('img_shape')
    padded = [tuple(info[n][:2]) for n in ('batch_input_shape', 'pad_shape')
              if info.get(n) is not None]
    if shape is None or size not in padded:
        return size
    return min(int(shape[0]), size[0]), min(int(shape[1]), size[1])
