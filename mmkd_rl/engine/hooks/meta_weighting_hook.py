"""Train MMKD's weight networks beside the student (Zhang et al. 2023).

Each batch's hard samples go to a buffer. Every few iterations, after the
student's update, the networks are trained through some steps that a copy of
the student takes on samples of the buffer. Nothing of the student changes:
neither parameters nor batch norm statistics nor its optimiser.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine.hooks.common import distillation_in, unwrapped
from mmkd_rl.records import (
    Batch,
    DistillationBatch,
    SeenBatch,
    TeacherStep,
    Truth,
)
from mmkd_rl.registry import HOOKS
from mmkd_rl.utils.precision import autocasts_to_half
from mmkd_rl.weighting import MMKD

#: Where a checkpoint keeps the networks.
CHECKPOINT_KEY = 'mmkd_rl_meta'
_CHECKPOINTING = (
    "model.weighting=MMKD trains through the student's training, which "
    'activation checkpointing does not allow: turn activation_checkpointing '
    "in the config and with_cp in the student's backbone off, or use another "
    'strategy')


@HOOKS.register_module()
class MetaWeightingHook(Hook):
    """Trains the networks and keeps them in the run's checkpoints.

    In distributed training each process has its own buffer, and gradients are
    averaged. After an epoch all buffers are emptied; a checkpoint that is
    written in between holds the main process's, and all resume with that.

    Args:
        interval: Student's iterations between two meta steps.

    Raises:
        ValueError: The interval is not positive.
    """

    # Before checkpoints are written and scalars are logged.
    priority = 'NORMAL'

    def __init__(self, interval: int = 5) -> None:
        if not isinstance(interval, int) or isinstance(interval, bool) or \
                interval < 1:
            raise ValueError('MetaWeightingHook.interval must be an integer '
                             f'>= 1, got {interval!r}')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Take charge of the networks.

        Raises:
            TypeError: The model's strategy has none.
            ValueError: Their turn would never come.
        """
        strategy = _strategy(runner)
        if self.interval > runner.max_iters:
            raise ValueError(
                f'MetaWeightingHook.interval={self.interval}, but training '
                f'has {runner.max_iters} iterations: weights would stay '
                'equal. Give a shorter interval')
        strategy.attended = True
        strategy.learner.synchronize()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None) -> None:
        """Remember the hard samples; maybe train the networks."""
        _strategy(runner)
        model = unwrapped(runner)
        remember(model)
        if self.every_n_train_iters(runner, self.interval):
            for name, value in meta_step(model, runner.optim_wrapper).items():
                runner.message_hub.update_scalar(f'train/meta/{name}', value)

    def after_train_epoch(self, runner: Runner) -> None:
        """Begin anew, so that a checkpoint of this moment is small and holds
        for all processes."""
        _strategy(runner).learner.buffer.clear()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Networks, their optimiser and buffer go into the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = _strategy(runner).learner.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A resumed run goes on with its networks.

        Raises:
            ValueError: The checkpoint has none, or others.
        """
        if not runner._resume:
            return  # only the weights were asked for
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                f'the checkpoint to resume from has no {CHECKPOINT_KEY!r}: it '
                'was not written by a run with MetaWeightingHook. To start '
                'from its weights alone use load_from without --resume')
        _strategy(runner).learner.load_state_dict(checkpoint[CHECKPOINT_KEY])


def remember(model: nn.Module) -> None:
    """Put the last batch's hard samples into the buffer."""
    distillation = distillation_of(model)
    assert distillation is not None
    strategy, step = distillation.weighting, distillation.last_step
    assert isinstance(strategy, MMKD)
    if step is not None and step.seen is not None:
        strategy.remember(step.seen, step.weights.record)


def meta_step(model: nn.Module,
              optim_wrapper: OptimWrapper) -> dict[str, float]:
    """Train the networks once on samples of the buffer.

    Args:
        model: A model with a distillation by MMKD.
        optim_wrapper: The student's; it gives precision and learning rates.

    Returns:
        What to log; empty with one teacher, whose weight is 1 anyway.

    Raises:
        RuntimeError: The student cannot be differentiated twice.
    """
    distillation = distillation_of(model)
    assert distillation is not None
    strategy = distillation.weighting
    assert isinstance(strategy, MMKD)
    if strategy.num_teachers == 1 or not len(strategy.learner.buffer):
        return {}
    samples = strategy.learner.buffer.draw(strategy.meta_batch_size)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    observer = _Observer(model)
    device = samples.inputs.device.type
    batch = Batch(samples.inputs)
    seen = SeenBatch(
        batch, Truth.of_labels(samples.targets),
        TeacherStep(samples.teachers, distillation.inner_features(batch)))

    def observe(parameters) -> DistillationBatch:
        # Buffers as copies: batch norm writes into them.
        tensors = {
            f'model.{n}': t
            for n, t in (*parameters.items(),
                         *((n, b.clone()) for n, b in model.named_buffers()))
        }
        with optim_wrapper.optim_context(model), \
                _without_half(device), \
                disable_saved_tensors_hooks(_CHECKPOINTING), \
                sdpa_kernel(SDPBackend.MATH):
            return functional_call(observer, tensors, (seen, ))

    try:
        return strategy.meta_update(
            observe, {n: p.detach().requires_grad_()
                      for n, p in trained.items()},
            {} if strategy.inner_lr else _rates(trained, optim_wrapper))
    except RuntimeError as error:
        if str(error) == _CHECKPOINTING or not any(
                part in str(error)
                for part in ('differentiated twice', 'is not implemented',
                             'not compatible with .grad')):
            raise
        raise RuntimeError(
            'model.weighting=MMKD needs second derivatives of the student, '
            f'which one of its layers does not have: {error}. Use another '
            'layer there (BN instead of SyncBN, for example) or another '
            'strategy') from error


class _Observer(nn.Module):
    """Lets ``functional_call`` reach :meth:`Distillation.forward_student`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, seen: SeenBatch) -> DistillationBatch:
        distillation = distillation_of(self.model)
        assert distillation is not None
        return distillation.forward_student(self.model, seen)


def _without_half(device: str) -> AbstractContextManager:
    """float16 becomes float32: the inner gradients have no loss scale that
    would keep them from vanishing. Other precisions stay."""
    return torch.autocast(device, enabled=False) \
        if autocasts_to_half(device) else nullcontext()


def _rates(trained: dict[str, nn.Parameter],
           optim_wrapper: OptimWrapper) -> dict[str, float]:
    """The current learning rate of each parameter; 0: it is not trained."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        raise TypeError(
            'MMKD reads the learning rate of one optimiser, but the config '
            'has several: give weighting.inner_lr')
    rates = {
        id(p): group['lr']
        for group in optim_wrapper.param_groups for p in group['params']
    }
    return {name: rates.get(id(p), 0.) for name, p in trained.items()}


def _strategy(runner: Runner) -> MMKD:
    strategy = distillation_in(runner, 'MetaWeightingHook').weighting
    if not isinstance(strategy, MMKD):
        raise TypeError(
            'custom_hooks has MetaWeightingHook, but model.weighting is '
            f'{type(strategy).__name__}, which has no meta step; remove the '
            "hook or use weighting=dict(type='MMKD')")
    return strategy
