"""Gaps and similarities of all terms together, which strategies read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_rl.losses import DistillationTerm
from mmkd_rl.records import Pair, Pairs
from mmkd_rl.utils.pooling import mean_over_space


def mean_gap(terms: Iterable[DistillationTerm], reads: str,
             gaps: Sequence[Tensor]) -> Tensor | None:
    """Mean gap of the terms that read ``reads`` (``'logits'`` or
    ``'features'``), weighted by their loss weights, [B, M]; ``None``: no term
    reads them.

    Args:
        terms: All terms.
        reads: What the terms read.
        gaps: Gap of each term, [B, M].
    """
    found = [(term.weight, gap)
             for term, gap in zip(terms, gaps) if term.reads == reads]
    if len(found) < 2:
        return found[0][1] if found else None
    total = sum(weight for weight, _ in found)
    if not total:
        return torch.stack([gap for _, gap in found]).mean(0)
    return sum(weight / total * gap  # type: ignore[return-value]
               for weight, gap in found)


@torch.no_grad()
def similarity(pairs: Pairs) -> Tensor:
    """cos(r_m(f_S), f_m) of the features pooled over space, averaged over
    levels, [B, M]."""
    return torch.stack([
        torch.stack([_cosine(pair) for pair in levels]).mean(0)
        for levels in pairs
    ], 1)


def _cosine(pair: Pair) -> Tensor:
    a, b = (mean_over_space(x.float(), pair.valid)
            for x in (pair.student, pair.teacher))
    return F.cosine_similarity(a, b, dim=1)
