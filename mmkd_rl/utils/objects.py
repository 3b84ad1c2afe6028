"""Boxes of objects, and the cells of a map that they cover.

Legend: B batch, N objects of the image with the most of them, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

#: Class of rows that stand for no object.
NONE = -1


def objects_of(samples: Sequence[Any], images: Tensor) -> Tensor | None:
    """Objects of each image, [B, N, 5]: x1, y1, x2, y2 as shares of the
    image's width and height, and the class; rows with class :data:`NONE` stand
    for no object. ``None``: the samples have no boxes.

    Args:
        samples: Data samples with ``gt_instances``.
        images: [B, 3, H, W].
    """
    found = [getattr(sample, 'gt_instances', None) for sample in samples]
    if not found or any(objects is None or 'bboxes' not in objects or
                        'labels' not in objects for objects in found):
        return None
    height, width = images.shape[2:]
    size = images.new_tensor([width, height, width, height, 1.],
                             dtype=torch.float32)
    rows = []
    for objects in found:
        boxes: Any = objects.bboxes  # type: ignore[union-attr]
        boxes = getattr(boxes, 'tensor', boxes).to(size)
        labels = objects.labels.to(size)  # type: ignore[union-attr]
        rows.append(torch.cat([boxes, labels[:, None]], 1) / size)
    return pad_sequence(rows, batch_first=True, padding_value=float(NONE))


def covered_cells(objects_N5: Tensor, size: Sequence[int]) -> Tensor:
    """Cells of a map that each object's box overlaps, at least one for a box
    in the image, [N, H, W], bool.

    Args:
        objects_N5: Objects of one image, see :func:`objects_of`.
        size: (H, W) of the map.
    """
    height, width = size
    columns_NW = _overlaps(objects_N5[:, 0], objects_N5[:, 2], width)
    rows_NH = _overlaps(objects_N5[:, 1], objects_N5[:, 3], height)
    is_object_N = objects_N5[:, 4] != NONE
    return (rows_NH & is_object_N[:, None])[:, :, None] & columns_NW[:, None]


def _overlaps(start_N: Tensor, stop_N: Tensor, cells: int) -> Tensor:
    """[N, cells]."""
    first_N = (start_N * cells).floor()
    end_N = torch.maximum((stop_N * cells).ceil(), first_N + 1)
    places = torch.arange(cells, device=start_N.device)
    return (places >= first_N[:, None]) & (places < end_N[:, None])
