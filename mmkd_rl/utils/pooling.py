"""Averages over space, and other resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_rl.records import Output, Truth


def mean_over_space(x: Tensor, valid_BHW: Tensor | None = None) -> Tensor:
    """Average [B, D, ...] over space to [B, D]; vectors are unchanged.

    Args:
        x: Features or dense logits.
        valid_BHW: Weight of each pixel, in the resolution of ``x``; ``None``:
            all are valid. An image without valid pixels gives zeros.
    """
    if x.ndim < 3:
        return x
    if valid_BHW is None or x.ndim < 4:
        return x.flatten(2).mean(2)
    valid_B1P = valid_BHW.to(x).flatten(1).unsqueeze(1)
    # Not only a product: invalid pixels may be infinite.
    kept = torch.where(valid_B1P > 0, x.flatten(2), 0.) * valid_B1P
    return kept.sum(2) / valid_B1P.sum(2).clamp_min(1e-6)


def pooled_features(output: Output, truth: Truth) -> Tensor:
    """Features of all levels, averaged over valid pixels, [B, sum_l D_l]."""
    return torch.cat(
        [mean_over_space(f, truth.valid_at(f)) for f in output.features], 1)


def masked_mean(values_BP: Tensor, valid_BP: Tensor | None) -> Tensor:
    """Mean over valid pixels, [B]; 0 for an image without any.

    Args:
        values_BP: One number for each pixel, [B, ...].
        valid_BP: Weights in [0, 1], of the same shape; ``None``: all are
            valid.
    """
    values_BP = values_BP.flatten(1)
    if valid_BP is None:
        return values_BP.mean(1)
    valid_BP = valid_BP.to(values_BP).flatten(1)
    kept_BP = torch.where(valid_BP > 0, values_BP, 0.) * valid_BP
    return kept_BP.sum(1) / valid_BP.sum(1).clamp_min(1e-6)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Dense logits [B, C, H, W] in another resolution, bilinear; averaged
    over more pixels where the new one is coarser."""
    height, width = size
    coarser = height < x.shape[2] or width < x.shape[3]
    return F.interpolate(x, (height, width), mode='bilinear',
                         align_corners=False, antialias=coarser)
