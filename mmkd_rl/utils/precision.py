"""State of mixed precision."""

from __future__ import annotations

import torch


def autocasts_to_half(device: str) -> bool:
    """Whether autocast to float16 is on, which has a small range (bfloat16 has
    that of float32)."""
    return torch.is_autocast_enabled(device) and \
        torch.get_autocast_dtype(device) == torch.float16
