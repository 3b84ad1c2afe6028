"""Write the plain student when training ends."""

from __future__ import annotations

import os

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner, weights_to_cpu
from mmengine.runner.checkpoint import get_state_dict

from mmkd_rl.engine.hooks.common import taught_by_us
from mmkd_rl.export import Format, export_student
from mmkd_rl.export.student import check_whole
from mmkd_rl.options import Checked
from mmkd_rl.registry import HOOKS
from mmkd_rl.utils import checkpoint_io


@HOOKS.register_module()
class StudentExportHook(Checked, Hook):
    """Exports the student with the weights of the run's last checkpoint
    (averaged weights if EMAHook is used).

    Args:
        out: File name; a relative one is in the work directory.
        to: Format, see :func:`mmkd_rl.export.export_student`.
    """

    priority = 'LOWEST'

    def __init__(self,
                 out: str = 'student.pth',
                 to: Format = 'mmpretrain') -> None:
        self.out, self.to = out, to

    def before_train(self, runner: Runner) -> None:
        """Check the model before the training, not after it.

        Raises:
            TypeError: The model has neither a distillation nor Knowledge
                Flow.
            ValueError: Its checkpoints leave weights out.
        """
        check_whole(taught_by_us(runner, type(self).__name__))

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Export the student."""
        model = taught_by_us(runner, type(self).__name__)
        facts = getattr(runner.train_dataloader.dataset, 'metainfo', None)
        # As in the runner's own checkpoints.
        checkpoint = dict(
            state_dict=weights_to_cpu(get_state_dict(model)),
            meta=dict(cfg=runner.cfg.pretty_text, dataset_meta=facts))
        # Other hooks change what is saved: EMAHook saves averages.
        runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        path = os.path.join(runner.work_dir, self.out)
        checkpoint_io.save(export_student(checkpoint, self.to), path)
        runner.logger.info(f'the plain student is in {path}')
