"""Save the random generators' states in checkpoints, for exact resuming.

MMEngine does not save them. Validation draws random numbers, too (each data
loader takes a seed), so a run resumed after an epoch would draw other numbers
than the uninterrupted run. So the states are saved at the end of each training
epoch and restored at the beginning of the next one.

Bitwise identical runs need more than this hook: checkpoints at the end of
epochs, data loader workers that are not persistent, and deterministic kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_rl.options import Checked
from mmkd_rl.registry import HOOKS
from mmkd_rl.utils import random_state

#: Key of the states in a checkpoint, one state for each process.
CHECKPOINT_KEY = 'mmkd_rl_random_state'


@HOOKS.register_module()
class RandomStateHook(Checked, Hook):
    """Saves and restores the generators of Python, NumPy and PyTorch."""

    # After hooks that draw random numbers, before the checkpoint is written.
    priority = 'LOW'

    def __init__(self) -> None:
        self._states: list[dict] | None = None  # one a process

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the states of the end of the last training epoch."""
        if self._states is not None:
            _restore(self._states[dist.get_rank()], runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Collect the states of all processes."""
        self._states = dist.all_gather_object(_capture(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the states of all processes in the checkpoint."""
        if self._states is not None:
            checkpoint[CHECKPOINT_KEY] = self._states

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the states of a resumed run from the checkpoint."""
        states = checkpoint.get(CHECKPOINT_KEY)
        if not runner._resume:
            return
        if states is None:
            why = ', because training counts iterations' if isinstance(
                runner.train_loop, IterBasedTrainLoop) else ''
            runner.logger.warning(
                f'the checkpoint has no states of the random generators{why}: '
                'the resumed run draws other random numbers than one that was '
                'not interrupted')
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
    """Restore the generators' states at the end of the block."""
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
        # Without a seed in the config each start draws another one.
        runner.train_dataloader.sampler.seed = state['sampler_seed']
    random_state.restore(state)
