"""Let teachers keep their outputs and read them again."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine import stored
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.options import Checked
from mmkd_rl.registry import HOOKS


@HOOKS.register_module()
class StoredOutputsHook(Checked, Hook):
    """Opens the stores of teachers with ``executor='stored'``, brings them to
    the disk after each epoch, and says how much was read.

    ``tools/train.py`` registers it.

    Raises:
        ConfigError: See :func:`mmkd_rl.engine.stored.begin`.
    """

    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Open the stores."""
        distillation = distillation_of(unwrapped(runner))
        if distillation is not None and distillation.teachers.stored:
            stored.check_hooks(runner.hooks)
            loader = runner.train_loop.dataloader
            # Of samplers of batches, the sampler of images.
            sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
            stored.begin(distillation, unwrapped(runner), loader.dataset,
                         sampler)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Check that no hook has switched mixing on."""
        distillation = distillation_of(unwrapped(runner))
        if distillation is not None and distillation.teachers.stored:
            stored.check_mixing(unwrapped(runner))

    def after_train_epoch(self, runner: Runner) -> None:
        """Bring the stores to the disk."""
        distillation = distillation_of(unwrapped(runner))
        for executor in distillation.teachers.stored if distillation else ():
            executor.flush()

    def after_train(self, runner: Runner) -> None:
        """Say how much was read."""
        distillation = distillation_of(unwrapped(runner))
        for executor in distillation.teachers.stored if distillation else ():
            runner.logger.info(
                f'teacher {executor.name!r}: outputs of '
                f'{executor.read_count:,} images were read and of '
                f'{executor.run_count:,} computed; {executor.description}')
