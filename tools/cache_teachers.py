"""Compute and store the teachers' outputs for all views of all training
images, before a training reads them.

    python tools/cache_teachers.py CONFIG --distill STRATEGY \
        --teacher NAME=CONFIG:CHECKPOINT --stored FOLDER views=8

Takes the arguments of train.py. A training stores the same as it goes; with
this tool several trainings can begin with full stores. It may be stopped, and
goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable

import torch
from distilled import distilled_runner
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from mmkd_rl import recipes
from mmkd_rl.datasets import RepeatableViews
from mmkd_rl.distillers import Distillation
from mmkd_rl.engine import stored
from mmkd_rl.engine.hooks import DataCheckHook
from mmkd_rl.records import Batch, ViewKey
from mmkd_rl.utils import cli


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config file, or package::path')
    recipes.add_arguments(parser)
    cli.add_common_arguments(parser)
    return parser.parse_args()


def fill(runner: Runner, distillation: Distillation) -> None:
    """Run the teachers on all views whose outputs are not stored."""
    own = runner.build_dataloader(runner._train_dataloader)
    data = own.dataset
    DataCheckHook().look_at(runner.model, own)
    stored.begin(distillation, runner.model, data)
    executors = distillation.teachers.stored
    if not executors:
        raise ValueError('no teacher stores its outputs; give --stored FOLDER')
    runner.model.eval()
    run(runner, distillation, data, [0])  # makes the files, or opens them
    absent = sorted(set().union(*(e.absent() for e in executors)))
    if absent:
        run(runner, distillation, data, absent, ProgressBar(len(absent)))
    print()
    for executor in executors:
        executor.flush()
        print(f'teacher {executor.name!r}: {executor.description}; '
              f'{executor.run_count:,} of them were computed now')


@torch.no_grad()
def run(runner: Runner, distillation: Distillation, data: RepeatableViews,
        numbers: Iterable[int], bar: ProgressBar | None = None) -> None:
    """Run the teachers on views, which stores their outputs.

    Args:
        runner: The runner, whose data loader's settings are used.
        distillation: The distillation.
        data: The data set.
        numbers: Indices of views in it.
        bar: Shows the progress.
    """
    settings = copy.deepcopy({
        k: v for k, v in runner._train_dataloader.items()
        if k not in ('dataset', 'sampler', 'batch_sampler')})
    # As MMEngine needs a batch size and a sampler.
    settings.setdefault('batch_size', 64)
    loader = runner.build_dataloader(dict(
        settings, dataset=data, sampler=list(numbers), drop_last=False))
    model = runner.model
    for given in loader:
        # As in the training: MMSegmentation pads only there.
        batch = model.data_preprocessor(given, True)
        samples = batch['data_samples']
        distillation.teachers.run(
            Batch(batch['inputs'], samples, ViewKey.of(samples)))
        if bar is not None:
            bar.update(len(samples))


def main() -> None:
    """Fill the stores."""
    with distilled_runner(parse_args()) as (_, runner, distillation):
        fill(runner, distillation)


if __name__ == '__main__':
    main()
