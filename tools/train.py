"""Train the model of a config.

Any OpenMMLab config is accepted: one of this project, or a plain config of
MMPretrain, MMDetection or MMSegmentation, by path or as
``mmdet::retinanet/...``. With ``--distill`` the model of a plain config
becomes the student of a distillation.
"""

import argparse
import os
import re
import shlex
import sys
from typing import Any

import torch
from mmengine.config import Config

from mmkd_rl import recipes
from mmkd_rl.engine.hooks import (
    DataCheckHook,
    LossCheckHook,
    PreflightHook,
    StoredOutputsHook,
)
from mmkd_rl.engine.hooks.load_report_hook import report_loading
from mmkd_rl.utils import cli
from mmkd_rl.utils.checkpoint_io import latest_in
from mmkd_rl.utils.patches import patch_mmengine

#: Names of files that a run writes.
_WRITTEN = re.compile(r'(epoch|iter)_\d+\.pth|best_.*\.pth|student\.pth')


def parse_args() -> argparse.Namespace:
    # MIM looks for the option --gpus in this help to tell old tools from new
    # ones: never mention it there.
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config file, or package::path')
    recipes.add_arguments(parser)
    parser.add_argument(
        '--backbone-from',
        metavar='RUN_OR_EXPORT',
        help="start from a trained student's backbone: the work dir of its "
        'training, a checkpoint, or an export')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint; without a path, from the last '
        'checkpoint in the work dir')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='automatic mixed precision (bfloat16 without a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size to '
        'the real batch size')
    parser.add_argument(
        '--no-validate', action='store_true', help='train without validation')
    parser.add_argument(
        '--seed', type=int, help='seed of all random generators')
    cli.add_common_arguments(parser)
    return parser.parse_args()


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line's arguments into ``cfg``, in place.

    Raises:
        ValueError: An argument does not fit the config.
        FileNotFoundError: The checkpoint to resume from does not exist.
    """
    cli.apply_common_arguments(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.seed is not None:
        cfg.setdefault('randomness', {})
        cfg.randomness.seed = args.seed
    if args.amp:
        wrapper = cfg.get('optim_wrapper', {})
        kind = wrapper.get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ValueError('--amp can only replace optim_wrapper.type='
                             f"'OptimWrapper', and the config has {kind!r}")
        if torch.cuda.is_available():
            wrapper.type = 'AmpOptimWrapper'
            wrapper.setdefault('loss_scale', 'dynamic')
        else:
            # MMEngine's AmpOptimWrapper does not run on a CPU; bfloat16 needs
            # no loss scale.
            wrapper.type = 'mmkd_rl.BFloat16OptimWrapper'
            wrapper.pop('loss_scale', None)
            wrapper.pop('dtype', None)
    if args.auto_scale_lr:
        scale = cfg.get('auto_scale_lr') or {}
        if 'base_batch_size' not in scale:
            raise ValueError('--auto-scale-lr needs auto_scale_lr='
                             'dict(base_batch_size=...) in the config')
        scale['enable'] = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('resume') and not cfg.get('load_from'):
        cfg.load_from = latest_in(cfg.work_dir)
    if cfg.get('load_from'):
        cli.check_checkpoint(cfg.load_from,
                             '--resume' if cfg.get('resume') else 'load_from')


def check_teachers_folders(part: Any, work_dir: str) -> None:
    """Refuse a work directory in which the run would overwrite the checkpoint
    of one of its teachers.

    Args:
        part: The config's model, or a part of it.
        work_dir: The work directory.

    Raises:
        ValueError: A teacher's checkpoint has the name of one that the run
            writes.
    """
    for value in part.values() if isinstance(part, dict) else part:
        if isinstance(value, (dict, list)):
            check_teachers_folders(value, work_dir)
    path = part.get('checkpoint') if isinstance(part, dict) else None
    if isinstance(path, str) and _WRITTEN.fullmatch(
            os.path.basename(path)) and os.path.realpath(
                os.path.dirname(path) or '.') == os.path.realpath(work_dir):
        raise ValueError(
            f'the checkpoint {path!r} of a teacher is in the work directory, '
            'and the run would overwrite it; give another --work-dir')


def main() -> None:
    args = parse_args()
    patch_mmengine()
    with cli.clear_errors(args.debug) as stage:
        cfg = recipes.read_config(args)
        apply_arguments(cfg, args)
        source = cfg.pop('backbone_from', None)
        if args.backbone_from or source:
            cfg = recipes.with_backbone(cfg, args.backbone_from or source)
        stage.cfg = cfg
        check_teachers_folders(cfg.get('model'), cfg.work_dir)
        cli.start_distributed_on_cpu(cfg)
        earlier = None if cfg.get('resume') else latest_in(cfg.work_dir)
        runner = cli.build_runner(cfg, 'train', 'val')
        if earlier:
            runner.logger.warning(
                f'{earlier} is of an earlier run in this work directory, and '
                "this run will overwrite that run's checkpoints; --resume "
                'goes on with it, --work-dir keeps it')
        report_loading(runner, '--resume' if cfg.get('resume') else
                       'load_from')
        for hook in (DataCheckHook, LossCheckHook, PreflightHook,
                     StoredOutputsHook):
            if not any(type(h) is hook for h in runner.hooks):
                runner.register_hook(hook())
        stage.resume_command = shlex.join([sys.executable, *sys.argv]) + (
            '' if args.resume else ' --resume')
        stage.watch(runner)
        runner.train()


if __name__ == '__main__':
    main()
