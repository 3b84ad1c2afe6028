"""State of mixed precision."""

from __future__ import annotations

import time
from functools import lru_cache

import torch

#: Emulated bfloat16 takes about seven times as long as float32, and what a
#: processor computes in it half as long; the border is far from both, so that
#: other work on the machine does not decide.
EMULATED = 2.


def autocasts_to_half(device: str) -> bool:
    """Whether autocast to float16 is on, which has a small range (bfloat16 has
    that of float32)."""
    return torch.is_autocast_enabled(device) and \
        torch.get_autocast_dtype(device) == torch.float16


@lru_cache
def bfloat16_slowdown(device: torch.device) -> float:
    """How many times as long as in float32 a convolution takes in bfloat16
    autocast on a device, measured in some tenths of a second."""
    random = torch.Generator().manual_seed(0)
    image = torch.rand(16, 64, 16, 16, generator=random).to(device)
    weight = torch.rand(64, 64, 3, 3, generator=random).to(device)

    def seconds(enabled: bool) -> float:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16,
                                             enabled=enabled):
            torch.nn.functional.conv2d(image, weight, padding=1)
            _wait(device)
            start = time.perf_counter()
            for _ in range(3):
                torch.nn.functional.conv2d(image, weight, padding=1)
            _wait(device)
        return time.perf_counter() - start

    # In turns, so that other work on the machine meets both.
    times = [(seconds(True), seconds(False)) for _ in range(5)]
    return min(t for t, _ in times) / min(t for _, t in times)


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
