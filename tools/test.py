"""Test a checkpoint with the test set and metrics of its config."""

import argparse
import os
from pathlib import Path

import mmengine
from mmengine.evaluator import DumpResults

import mmkd_rl  # noqa: F401  (registers the scope mmkd_rl)
from mmkd_rl.engine.hooks.load_report_hook import report_loading
from mmkd_rl.utils import cli
from mmkd_rl.utils.checkpoint_io import last_checkpoint
from mmkd_rl.utils.configs import load_config
from mmkd_rl.utils.patches import patch_mmengine


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or package::path')
    parser.add_argument(
        'checkpoint', help='checkpoint file, or the work dir of a run (its '
        'last checkpoint)')
    parser.add_argument(
        '--out',
        help='file for the metrics (.json, .yaml) or the predictions (.pkl)')
    cli.add_common_arguments(parser)
    return parser.parse_args()


def check_out(out: str) -> str:
    """Suffix of ``--out``.

    Raises:
        ValueError: Files with this suffix cannot be written.
    """
    suffix = Path(out).suffix
    if suffix not in ('.json', '.yaml', '.yml', '.pkl', '.pickle'):
        raise ValueError(f'--out {out!r} must end in .json or .yaml (for '
                         'metrics) or .pkl (for predictions)')
    if Path(out).is_dir():
        raise ValueError(f'--out {out!r} is a folder; give a file')
    return suffix


def main() -> None:
    args = parse_args()
    patch_mmengine()
    with cli.clear_errors(args.debug) as stage:
        suffix = check_out(args.out) if args.out else ''
        cfg = load_config(args.config)
        cli.apply_common_arguments(cfg, args)
        stage.cfg = cfg
        path = last_checkpoint(args.checkpoint, 'checkpoint')
        cli.check_checkpoint(path, 'checkpoint')
        cfg.load_from, cfg.resume = path, False
        cli.start_distributed_on_cpu(cfg)
        runner = cli.build_runner(cfg, 'test')
        report_loading(runner, 'checkpoint')
        if suffix in ('.pkl', '.pickle'):
            runner.test_evaluator.metrics.append(
                DumpResults(out_file_path=args.out))
        stage.watch(runner)
        metrics = runner.test()
        if suffix in ('.json', '.yaml', '.yml') and runner.rank == 0:
            Path(args.out).parent.mkdir(parents=True, exist_ok=True)
            new = f'{args.out}.new{suffix}'
            mmengine.dump(metrics, new)
            os.replace(new, args.out)


if __name__ == '__main__':
    main()
