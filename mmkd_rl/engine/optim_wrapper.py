"""Mixed precision that also runs on a CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast
from torch import nn
from torch.optim import Optimizer

from mmkd_rl.options import Checked
from mmkd_rl.registry import OPTIM_WRAPPERS
from mmkd_rl.utils.precision import EMULATED, bfloat16_slowdown


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(Checked, OptimWrapper):
    """An ``OptimWrapper`` whose forward pass runs in bfloat16 autocast.

    MMEngine's ``AmpOptimWrapper`` refuses to run without an accelerator.
    bfloat16 has the exponents of float32, so there is no loss to scale, and
    on a CPU that computes in it, training is about twice as fast. Other
    processors emulate it.

    Args:
        optimizer: See MMEngine's ``OptimWrapper``.
        precision: ``'auto'``: float32 where a short measurement in the first
            step finds that the device emulates bfloat16, which is logged;
            ``'bfloat16'`` or ``'float32'``: as it says.
        **kwargs: See MMEngine's ``OptimWrapper``.
    """

    def __init__(self, optimizer: Optimizer,
                 precision: Literal['auto', 'bfloat16', 'float32'] = 'auto',
                 **kwargs: Any) -> None:
        super().__init__(optimizer, **kwargs)
        self.precision = precision

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in bfloat16, or in float32."""
        if self.precision == 'auto':
            self.precision = _measured(model)
        with super().optim_context(model), autocast(
                dtype=torch.bfloat16, enabled=self.precision == 'bfloat16'):
            yield


def _measured(model: nn.Module) -> Literal['bfloat16', 'float32']:
    device = next((p.device for p in model.parameters()),
                  torch.device('cpu'))
    ratio = bfloat16_slowdown(device)
    if ratio < EMULATED:
        return 'bfloat16'
    print_log(
        f'bfloat16 takes {ratio:.1f} times as long as float32 here: the '
        'device emulates it. So this run trains in float32; '
        "optim_wrapper.precision='bfloat16' forces the other", 'current',
        logging.WARNING)
    return 'float32'
