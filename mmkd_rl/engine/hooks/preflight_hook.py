"""Say at the start of a training what each teacher knows of its images."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.engine.preflight import Examination
from mmkd_rl.options import Checked, Count
from mmkd_rl.records import Batch
from mmkd_rl.registry import HOOKS


@HOOKS.register_module()
class PreflightHook(Checked, Hook):
    """Runs all networks on the first batches of a training, logs a table of
    their losses, and warns of teachers that are no better than chance or than
    the student. The training itself does not change.

    ``tools/train.py`` registers it for distillations. A resumed run is not
    looked at again.

    Args:
        images: Number of images that are enough.
        batches: Largest number of batches.
    """

    # After the checks of the data.
    priority = 'HIGH'

    def __init__(self, images: Count = 64, batches: Count = 16) -> None:
        self.images, self.batches = images, batches
        self._examination: Examination | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin, unless the run is resumed."""
        model = unwrapped(runner)
        distillation = distillation_of(model)
        if distillation is not None and runner.iter == 0:
            self._examination = Examination(model, distillation)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Look at a batch."""
        if self._examination is None:
            return
        model = unwrapped(runner)
        # Preprocessors change samples in place; without augmentations of the
        # batch.
        data = model.data_preprocessor(copy.deepcopy(data_batch), False)
        self._examination.look(Batch(data['inputs'], data['data_samples']))
        if self._examination.images >= self.images or \
                runner.iter + 1 >= self.batches:
            self._say(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report after a short epoch."""
        if self._examination is not None:
            self._say(runner)

    def _say(self, runner: Runner) -> None:
        assert self._examination is not None
        report = self._examination.report()
        self._examination = None
        runner.logger.info(f'networks on the first {report.images} training '
                           f'images:\n{report.table()}')
        for text in report.warnings():
            runner.logger.warning(text)
