"""Stop a run whose loss is not a number, and name the part that was first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.options import Checked, Count
from mmkd_rl.registry import HOOKS

#: Larger than any iteration: a loss that has been finite so far.
_NEVER = 2**62
#: How many times the student's own loss a term is not by reasonable weights.
_LARGE = 1e4


@HOOKS.register_module()
class LossCheckHook(Checked, Hook):
    """Checks that losses are finite.

    Once a weight is NaN, all losses are. So the iteration in which each loss
    ceased to be finite is kept (without synchronising with the device), and
    every ``interval`` iterations and after each epoch it is read. A loss that
    was infinite for some steps and is finite again, as mixed precision in
    float16 allows, does not stop the run. ``tools/train.py`` registers the
    hook.

    Args:
        interval: Iterations between two checks.

    Raises:
        FloatingPointError: A loss is NaN or infinite; the message names the
            losses that were so first.
    """

    # Before hooks that use the model, such as the agent's.
    priority = 'VERY_HIGH'

    def __init__(self, interval: Count = 50) -> None:
        self.interval = interval
        self._names: tuple[str, ...] = ()
        self._first: Tensor | None = None
        #: Losses of the last iteration in which all were finite.
        self._before: Tensor | None = None

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Keep which losses are finite; check every ``interval``
        iterations."""
        if isinstance(outputs, Mapping):
            self._see({n: v for n, v in outputs.items()
                       if isinstance(v, Tensor) and 'loss' in n},
                      runner.iter + 1)
        if self.every_n_train_iters(runner, self.interval):
            self._check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check before the agent learns and a checkpoint is written."""
        self._check(runner)

    def _see(self, losses: dict[str, Tensor], iteration: int) -> None:
        if not losses:
            return
        names = tuple(losses)
        values = torch.stack([v.detach().float().mean()
                              for v in losses.values()])
        finite = values.isfinite()
        if names != self._names:
            self._names = names
            self._first = torch.full_like(finite, _NEVER, dtype=torch.int64)
            self._before = values
        assert self._first is not None and self._before is not None
        self._first = torch.where(
            finite, _NEVER, self._first.clamp_max(iteration))
        self._before = torch.where(finite.all(), values, self._before)

    def _check(self, runner: Runner) -> None:
        if self._first is None or self._before is None:
            return
        first = self._first.clone()
        # All processes stop, so that none waits for another one.
        dist.all_reduce(first, op='min')
        iteration = int(first.min())
        if iteration == _NEVER:
            return
        bad = [n for n, at in zip(self._names, first.tolist())
               if at == iteration and n != 'loss'] or ['loss']
        before = {n: v for n, v in zip(self._names, self._before.tolist())
                  if n != 'loss' or len(self._names) == 1}
        terms = _terms_of(runner)
        own = sum(v for n, v in before.items() if n not in terms)
        large = [n for n, v in before.items()
                 if n in terms and not v < _LARGE * max(1., own)]
        advice = (
            f'{", ".join(large)} of the distillation was far larger than the '
            "student's own loss: lower its loss_weight" if large else
            'The student itself diverged: lower optim_wrapper.optimizer.lr, '
            'begin with a warm-up (LinearLR), or set optim_wrapper.clip_grad='
            'dict(max_norm=...)')
        raise FloatingPointError(
            f'{", ".join(bad)} became NaN or infinite in iteration '
            f'{iteration}; before: ' +
            ', '.join(f'{n} {v:.4g}' for n, v in before.items()) +
            f'. {advice}. '
            'With mixed precision, try without it')


def _terms_of(runner: Runner) -> set[str]:
    """Names in the log of the distillation's losses."""
    distillation = distillation_of(unwrapped(runner))
    return set() if distillation is None else set(distillation.loss_names)
