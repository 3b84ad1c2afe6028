"""Compute the teachers' mean feature of each class for NDLoss (KD++, Sec. 3).

Before training every teacher is run on the training set once. The means are
buffers of the loss and saved in checkpoints: a resumed run needs no second
pass.
"""

from __future__ import annotations

import time

import torch
from mmengine import dist
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmkd_rl.distillers import Distillation
from mmkd_rl.engine.hooks.common import distillation_in, unwrapped
from mmkd_rl.engine.hooks.random_state_hook import unchanged_random_state
from mmkd_rl.losses import NDLoss
from mmkd_rl.losses.nd import class_sums
from mmkd_rl.options import Checked, ConfigError
from mmkd_rl.records import Batch
from mmkd_rl.registry import HOOKS


@HOOKS.register_module()
class ClassMeanHook(Checked, Hook):
    """Computes the class means of ``NDLoss(means='dataset')``.

    The pass does not change the state of the random generators. Each process
    takes its part of the data.

    Args:
        dataloader: Config of a data loader, for images without augmentation
            (the authors': the test pipeline on the training set). ``None``:
            the training set with its own pipeline, in order; the means are
            then of augmented images, as in training.

    Raises:
        ConfigError: ``dataloader`` has no data set.
    """

    # Before hooks that copy or save the model.
    priority = 'VERY_HIGH'

    def __init__(self, dataloader: dict | None = None) -> None:
        if dataloader is not None and 'dataset' not in dataloader:
            raise ConfigError(
                'ClassMeanHook.dataloader', "must be a data loader's config, "
                "a dict with a 'dataset', or None for the training set, got "
                f'{dataloader!r}')
        self.dataloader = dataloader

    def before_train(self, runner: Runner) -> None:
        """Run the teachers, unless a resumed run has the means already.

        Raises:
            TypeError: The model's feature loss takes no class means.
            ValueError: There are no images.
        """
        distillation = distillation_in(runner, type(self).__name__)
        takers = _takers(distillation)
        if runner._resume and all(loss.ready for loss in takers):
            return
        start = time.perf_counter()
        with unchanged_random_state(runner):
            sums, counts_C = self._sums(runner, distillation, takers[0])
        for tensor in (counts_C, *sums):
            dist.all_reduce(tensor)
        if not counts_C.any():
            raise ValueError('ClassMeanHook: the data loader gives no image '
                             'with finite features')
        for loss in takers:
            loss.set_means(sums, counts_C)
        absent = int((counts_C == 0).sum())
        runner.logger.info(
            f'class means of {len(sums)} teachers over '
            f'{counts_C.sum().item():.0f} images in '
            f'{time.perf_counter() - start:.1f} s' +
            (f'; {absent} of {len(counts_C)} classes have none: loss_feature '
             'is zero for them' if absent else ''))

    def _sums(self, runner: Runner, distillation: Distillation,
              loss: NDLoss) -> tuple[list[Tensor], Tensor]:
        """Sums of each teacher's features by class, and numbers of images, of
        this process's part of the data; in float64."""
        total = [
            torch.zeros_like(b, dtype=torch.float64)
            for b in (loss.counts, *loss.class_means)
        ]
        for data in self._loader(runner):
            with torch.no_grad(), \
                    runner.optim_wrapper.optim_context(runner.model):
                # training=False: mixup would mix the classes
                data = unwrapped(runner).data_preprocessor(
                    data, training=False)
                batch = Batch(data['inputs'], data['data_samples'])
                outputs = distillation.teachers(batch)
            sums, counts_C = class_sums(
                [o.features[0] for o in outputs],
                distillation.task.truth(batch).targets, len(loss.counts))
            for a, b in zip(total, (counts_C, *sums)):
                a += b.double()
        # Other runs do this check at the first batch, in all processes.
        distillation.teachers.check_first(loss.counts.device)
        return total[1:], total[0]

    def _loader(self, runner: Runner) -> DataLoader:
        if self.dataloader is not None:
            return runner.build_dataloader(
                {
                    'batch_size': runner.train_dataloader.batch_size,
                    'num_workers': 0,
                    'sampler': dict(
                        type='DefaultSampler', shuffle=False, round_up=False),
                    **self.dataloader
                },
                seed=runner.seed)
        train = runner.train_dataloader
        return DataLoader(
            train.dataset,
            batch_size=train.batch_size or 1,
            # round_up=False: no image may count twice
            sampler=DefaultSampler(
                train.dataset, shuffle=False, seed=0, round_up=False),
            num_workers=train.num_workers,
            collate_fn=train.collate_fn,
            worker_init_fn=train.worker_init_fn)


def _takers(distillation: Distillation) -> list[NDLoss]:
    """The terms that need class means of the training set; all get the same.

    Raises:
        TypeError: No term needs them.
    """
    takers, found = [], []
    for term in distillation.terms:
        if isinstance(term, NDLoss):
            if term.means == 'dataset':
                takers.append(term)
            found.append(f'NDLoss(means={term.means!r})')
        elif term.reads == 'features':
            found.append(type(term).__name__)
    if takers:
        return takers
    raise TypeError(
        'custom_hooks has ClassMeanHook, but model.feature_loss is '
        f'{", ".join(found) or None}, which takes no class means; remove the '
        "hook or use feature_loss=dict(type='NDLoss')")
