"""Try a distillation before it is trained: what each teacher knows of the
training images, what a step costs, and how much disk the run needs.

    python tools/preflight.py CONFIG [--distill STRATEGY --teacher ...]

Takes the arguments of train.py. Nothing is trained and no work directory is
written. The exit code is 1 if there is a warning.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import resource
import sys
import time

import torch
from distilled import distilled_runner
from mmengine.config import Config
from mmengine.runner import Runner

from mmkd_rl import recipes
from mmkd_rl.distillers import Distillation
from mmkd_rl.engine.hooks import DataCheckHook
from mmkd_rl.engine.preflight import STUDENT, Examination, Preflight
from mmkd_rl.records import Batch
from mmkd_rl.utils import cli

_GIB = 2**30


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config file, or package::path')
    recipes.add_arguments(parser)
    parser.add_argument(
        '--images', type=_positive, default=256,
        help='number of training images (default: %(default)s)')
    cli.add_common_arguments(parser)
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {text}')
    return number


def examine(runner: Runner, distillation: Distillation,
            images: int) -> Preflight:
    """Run all networks on training batches."""
    loader = runner.build_dataloader(runner._train_dataloader)
    check = DataCheckHook()
    check.look_at(runner.model, loader)
    examination = Examination(runner.model, distillation)
    for data in loader:
        check.check(runner, data, first=examination.images == 0)
        data = runner.model.data_preprocessor(data, False)
        examination.look(Batch(data['inputs'], data['data_samples']))
        if examination.images >= images:
            break
    return examination.report()


def step_seconds(runner: Runner) -> float:
    """Seconds of a training step's forward and backward passes, the faster
    one of two."""
    loader = runner.build_dataloader(runner._train_dataloader)
    # One iterator: a second one closes some samplers.
    batches = itertools.cycle(itertools.islice(loader, 2))
    model, seconds = runner.model.train(), []
    for _ in range(2):
        # Preprocessors change samples in place.
        data = copy.deepcopy(next(batches))
        start = time.perf_counter()
        given = model.data_preprocessor(data, True)
        loss, _ = model.parse_losses(model(**given, mode='loss'))
        loss.backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def places(distillation: Distillation) -> str:
    """Where the outputs of each network are read."""
    networks = {STUDENT: distillation.taps, **{
        t.name: t.taps for t in distillation.teachers}}
    return '\n'.join(
        f'  {name}: ' + '; '.join(
            f'{what} ' + ', '.join(
                t.path + (' (input)' if t.source == 'input' else '')
                for t in taps)
            for what, taps in (('features', own.features),
                               ('logits', own.logits)) if taps)
        for name, own in networks.items())


def memory() -> str:
    """The largest memory so far."""
    if torch.cuda.is_available():
        return (f'{torch.cuda.max_memory_allocated() / _GIB:.2f} GiB on the '
                'GPU')
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == 'darwin' else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f'{peak / _GIB:.2f} GiB in all'


def disk(runner: Runner, cfg: Config) -> str:
    """An estimate of the checkpoints' size."""
    weights = sum(t.numel() * t.element_size()
                  for t in runner.model.state_dict().values())
    # Adam keeps two numbers for each weight, SGD with momentum one.
    kind = str(((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get(
        'type'))
    one = weights * (3 if 'Adam' in kind else 2)
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    interval, length = hook.get('interval', 1), runner.train_loop.max_epochs \
        if hook.get('by_epoch', True) else runner.train_loop.max_iters
    keep = hook.get('max_keep_ckpts', -1)
    count = max(1, length // interval if interval and interval > 0 else 1)
    count = min(count, keep) if keep and keep > 0 else count
    return (f'{one / 2**20:.1f} MiB a checkpoint, {count * one / _GIB:.2f} '
            f'GiB for {count}')


def main() -> None:
    """Print the report."""
    args = parse_args()
    warned = False
    with distilled_runner(args) as (cfg, runner, distillation):
        runner._init_model_weights()
        runner.load_or_resume()
        report = examine(runner, distillation, args.images)
        costs = (f'a step without the optimiser: {step_seconds(runner):.2f} s '
                 f'for {cfg.train_dataloader.batch_size} images\n'
                 f'memory: {memory()}\ndisk: {disk(runner, cfg)}')
        # Together, after what data sets print.
        print(f'\n{report.images} training images:\n{report.table()}\n\n'
              f'read at\n{places(distillation)}\n\n{costs}')
        for text in report.warnings():
            warned = True
            print(f'\nWARNING: {text}')
        if not warned:
            print('\nno teacher looks wrong')
    if warned:
        sys.exit(cli.EXIT_FAILED)


if __name__ == '__main__':
    main()
