"""Check the training data while they are read: labels, numbers, ranges.

The checks are made on the CPU before a batch goes to the device. Without them
a wrong label ends in an index error of the loss, and an empty epoch in a
student that was never trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine.data_checks import (
    check_best,
    check_classes,
    check_folders,
    check_form,
    check_labels,
    check_length,
    classes_of,
    head_of,
    number_of_classes,
)
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.flow import KnowledgeFlow
from mmkd_rl.options import Checked, ConfigError
from mmkd_rl.registry import HOOKS
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.pipelines import pipeline_normalization

#: Pixels beyond this are not of images with 8 bits.
_LARGEST = 255.


@HOOKS.register_module()
class DataCheckHook(Checked, Hook):
    """Checks that there are batches, that labels are classes of the model,
    and that images are on the scale of 0 to 255; and tells teachers of a
    normalisation in the pipeline.

    ``tools/train.py`` registers it.

    Raises:
        ConfigError: There is no batch in an epoch; an image has no label, or
            one beyond the classes.
    """

    # Before other hooks read the batch.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._pipeline: Normalization | None = None
        self._classes: int | None = None
        self._ignored: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Check the number of batches, and look at the pipeline."""
        check_folders(classes_of(runner.train_loop.dataloader))
        self.look_at(unwrapped(runner), runner.train_loop.dataloader)
        check_length(runner.train_loop)
        if not any(map(any, runner.optim_wrapper.get_lr().values())) and \
                not runner.param_schedulers:
            runner.logger.warning('the learning rate is 0 '
                                  '(optim_wrapper.optimizer.lr): nothing is '
                                  'learned')
        for name in ('val', 'test'):
            loop = getattr(runner, f'_{name}_loop')
            check_classes(
                classes_of(runner.train_loop.dataloader),
                classes_of(getattr(loop, 'dataloader', None)),
                f'{name}_dataloader.dataset', 'the training data')

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Check the labels of the first epoch's batches, and the range of the
        first batch's images."""
        if runner.iter < len(runner.train_loop.dataloader):
            self.check(runner, data_batch, first=runner.iter == 0)

    def after_val_epoch(self, runner: Runner,
                        metrics: dict[str, float] | None = None) -> None:
        """Check that the best checkpoint is kept by one of the figures."""
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.save_best:
                names = hook.save_best
                check_best([names] if isinstance(names, str) else names,
                           metrics or {})

    def look_at(self, model: nn.Module, loader: DataLoader) -> None:
        """Check the number of batches; see what labels are right, and what
        the pipeline does.

        Args:
            model: The student's model.
            loader: Data loader of the training.

        Raises:
            ConfigError: There is no batch, or the labels' form is not the
                loss'.
        """
        if not len(loader):
            raise ConfigError(
                'train_dataloader', 'an epoch has no batch: '
                f'{len(loader.dataset)} images are fewer than a batch of '  # type: ignore[arg-type]
                f'{loader.batch_size}, and drop_last is set; use a smaller '
                'batch_size or drop_last=False')
        check_form(model)
        self._classes = number_of_classes(model)
        self._ignored = getattr(head_of(model), 'ignore_index', None)
        self._pipeline = pipeline_normalization(loader.dataset)
        if self._pipeline is not None:
            self._adapt(model, self._pipeline)

    def check(self, runner: Runner, batch: Any, first: bool) -> None:
        """Check a batch, before the preprocessor.

        Args:
            runner: The runner, for its logger.
            batch: A batch of the data loader.
            first: Whether it is the first one, whose range is checked.

        Raises:
            ConfigError: See the class.
        """
        if not isinstance(batch, Mapping):
            return
        if self._classes is not None:
            check_labels(batch.get('data_samples') or (), self._classes,
                         self._ignored)
        if first:
            self._check_range(runner, batch.get('inputs'))

    def _adapt(self, model: nn.Module, pipeline: Normalization) -> None:
        """Set the normalisation of the images that teachers are given."""
        own = Normalization.of(getattr(model, 'data_preprocessor', None))
        both = pipeline if own is None else pipeline.then(own)
        distillation = distillation_of(model)
        if distillation is not None:
            distillation.teachers.adapt(both)
        for module in model.modules():
            if isinstance(module, KnowledgeFlow):
                module.set_normalization(both)

    def _check_range(self, runner: Runner, inputs: Any) -> None:
        images = inputs if isinstance(inputs, Tensor) else (
            inputs[0] if isinstance(inputs, Sequence) and inputs and
            isinstance(inputs[0], Tensor) else None)
        if images is None or images.dtype == torch.uint8:
            return
        # PyTorch has no minimum of 16 bits without a sign.
        low, high = (float(v) for v in images.float().aminmax())
        if self._pipeline is not None:
            mean, std = self._pipeline.mean, self._pipeline.std
            low = low * min(std) + min(mean)
            high = high * max(std) + max(mean)
            wrong = low < -_LARGEST or high > 3 * _LARGEST
        else:
            wrong = high > 1.2 * _LARGEST or high <= 2 or low < -1
        if wrong:
            runner.logger.warning(
                f'the first images have values from {low:.4g} to {high:.4g}, '
                'and not from 0 to 255. Teachers get them by the '
                "preprocessors' mean and std, so one that was trained on "
                'another scale sees nonsense. Images of 16 bits, or divided '
                'by 255, need preprocessors for their scale, also in the '
                "teachers' configs")
