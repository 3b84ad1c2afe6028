r"""The action's two sources beside the agent (MTKD-RL, Eqs. 9 to 14).

.. math::
    w = \gamma^{gen} w^{gen} + \gamma^{conf} w^{conf} + \gamma^{div} w^{div}

Each is a distribution over the teachers. M = 1, where Eq. (9) divides by
zero, gives w = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(values_BM: Tensor) -> Tensor:
    """w^div = softmax_m of the cosines (features, Eq. 11) or of the
    divergences (logits, Eq. 12: the most distant teacher weighs most), [B, M].
    """
    return values_BM.softmax(1)


def mix(generated_B2M: Tensor, sources_B22M: Tensor,
        balances_23: Tensor) -> Tensor:
    """Eqs. (13) and (14): the balanced sum of the three sources.

    Args:
        generated_B2M: w^gen, logits first.
        sources_B22M: w^conf and w^div of the logits, then of the features.
        balances_23: gamma, rows summing to one.

    Returns:
        w, [B, 2, M], rows summing to one.
    """
    stacked_B23M = torch.cat([generated_B2M.unsqueeze(2), sources_B22M], 2)
    return (stacked_B23M * balances_23.unsqueeze(-1)).sum(2)
