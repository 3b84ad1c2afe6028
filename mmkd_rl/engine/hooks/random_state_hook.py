"""Runs that resume exactly: the random generators go into the checkpoint.

MMEngine saves none of them. Beside that, validation draws random numbers too
(each data loader takes a seed), so that a run that is resumed after an epoch
would begin the next one elsewhere in the sequence than the run that went on.
So the state is taken when an epoch of training ends and put back when the next
one begins: what happens in between leaves no trace.

Exact to the bit needs more than this hook: epochs as the unit of checkpoints,
data loader workers that are not persistent, and deterministic kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_rl.options import Checked
from mmkd_rl.registry import HOOKS
from mmkd_rl.utils import random_state

#: Where a checkpoint keeps the states, one a process.
CHECKPOINT_KEY = 'mmkd_rl_random_state'


@HOOKS.register_module()
class RandomStateHook(Checked, Hook):
    """Saves and restores the generators of Python, NumPy and PyTorch."""

    # After all that draws random numbers, before the checkpoint is written.
    priority = 'LOW'

    def __init__(self) -> None:
        self._states: list[dict] | None = None  # one a process

    def before_train_epoch(self, runner: Runner) -> None:
        """Go on where the last epoch of training ended."""
        if self._states is not None:
            _restore(self._states[dist.get_rank()], runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Note where this one ended, in every process."""
        self._states = dist.all_gather_object(_capture(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The states of all processes go into the one checkpoint."""
        if self._states is not None:
            checkpoint[CHECKPOINT_KEY] = self._states

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A resumed run goes on with the numbers that would have come."""
        states = checkpoint.get(CHECKPOINT_KEY)
        if not runner._resume or states is None:
            return
        if len(states) != dist.get_world_size():
            runner.logger.warning(
                f'the checkpoint was written by {len(states)} processes and '
                f'this run has {dist.get_world_size()}: it does not repeat '
                "the first run's random numbers")
            return
        self._states = states


@contextmanager
def unchanged_random_state(runner: Runner) -> Iterator[None]:
    """What happens within leaves no trace in the generators."""
    state = _capture(runner)
    try:
        yield
    finally:
        _restore(state, runner)


def _capture(runner: Runner) -> dict:
    sampler = runner.train_dataloader.sampler
    return dict(
        sampler_seed=getattr(sampler, 'seed', None), **random_state.capture())


def _restore(state: dict, runner: Runner) -> None:
    if state['sampler_seed'] is not None:
        # Without a seed in the config each start draws its own.
        runner.train_dataloader.sampler.seed = state['sampler_seed']
    random_state.restore(state)
