"""Look at the checkpoint that a runner loads: how many of the model's weights
it gives, see :mod:`mmkd_rl.utils.load_report`; and whether its classes and its
optimiser are those of the run.
"""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_rl.distillers import check_outermost
from mmkd_rl.engine.data_checks import check_classes, classes_of
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.engine.resuming import check_optimizer, forget_other_folders
from mmkd_rl.options import Checked
from mmkd_rl.registry import HOOKS
from mmkd_rl.teachers.facts import Facts
from mmkd_rl.utils.load_report import Key, fitted, watch_loading
from mmkd_rl.utils.state_dicts import check_values


@HOOKS.register_module()
class LoadReportHook(Checked, Hook):
    """Counts the weights that a checkpoint gives to the model.

    ``tools/train.py`` and ``tools/test.py`` register it. Of a distilled model
    only the student's weights are counted; of a resumed run all weights.

    Args:
        key: The user's option with the file: ``'load_from'``,
            ``'checkpoint'`` (to be tested) or ``'--resume'``.

    Raises:
        ValueError: While loading: no weight of the model, or fewer than
            expected, came from the file.
    """

    # After hooks that change the checkpoint's names.
    priority = 'VERY_LOW'

    def __init__(self, key: Key = 'load_from') -> None:
        self.key = key

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Bring the checkpoint's names to the model's, and register hooks on
        the model, whose weights are loaded next."""
        model, path = unwrapped(runner), str(runner._load_from)
        if self.key != '--resume':  # of a run of ours, with all its names
            checkpoint['state_dict'] = fitted(checkpoint, model,
                                              f'{self.key} {path!r}')
        else:
            check_values(checkpoint['state_dict'], f'--resume {path!r}')
            forget_other_folders(checkpoint, runner.work_dir)
            optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
            if optimizer is not None:  # several have no common one
                check_optimizer(checkpoint.get('optimizer'), optimizer)
        if self.key == 'checkpoint':
            loop = runner._test_loop
            check_classes(
                Facts.of(checkpoint).classes,
                classes_of(getattr(loop, 'dataloader', None)),
                'test_dataloader.dataset', f'{path!r}')
        watch_loading(model, self.key, path)


def report_loading(runner: Runner, key: Key) -> None:
    """Register :class:`LoadReportHook`, and check that the distilled model is
    the runner's model itself.

    Args:
        runner: A runner that has not trained or tested yet.
        key: See :class:`LoadReportHook`.

    Raises:
        TypeError: Only a part of the model is distilled.
    """
    check_outermost(unwrapped(runner))
    runner.register_hook(LoadReportHook(key))
