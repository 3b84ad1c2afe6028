"""What mixed precision does at the moment."""

from __future__ import annotations

import torch


def autocasts_to_half(device: str) -> bool:
    """Whether autocast uses float16, whose range is small; bfloat16 has
    float32's."""
    return torch.is_autocast_enabled(device) and \
        torch.get_autocast_dtype(device) == torch.float16
