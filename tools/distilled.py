"""The runner of a distillation that a tool looks at and does not train."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.runner import Runner

from mmkd_rl import recipes
from mmkd_rl.distillers import Distillation, distillation_of
from mmkd_rl.utils import cli
from mmkd_rl.utils.patches import patch_mmengine


@contextmanager
def distilled_runner(args: argparse.Namespace
                     ) -> Iterator[tuple[Config, Runner, Distillation]]:
    """Build the config, the runner and the distillation of a command line;
    errors end the process, see :func:`mmkd_rl.utils.cli.clear_errors`.

    Args:
        args: Arguments of ``recipes.add_arguments`` and
            ``cli.add_common_arguments``. The work directory is a temporary
            one, in place of ``args.work_dir``.
    """
    patch_mmengine()
    with cli.clear_errors(args.debug) as stage, \
            tempfile.TemporaryDirectory() as folder:
        cfg = recipes.read_config(args)
        args.work_dir = folder
        cli.apply_common_arguments(cfg, args)
        cfg.log_level = 'WARNING'
        stage.cfg = cfg
        runner = cli.build_runner(cfg, 'train')
        distillation = distillation_of(runner.model)
        if distillation is None:
            raise ValueError('the config has no teachers; give some with '
                             '--distill STRATEGY --teacher NAME=CONFIG:FILE')
        learner = distillation.weighting.learner
        if learner is not None:
            learner.has_hook = True  # or it would warn that nothing trains it
        yield cfg, runner, distillation
