"""The student as a function of its parameters, for MMKD's inner steps.

The student itself does not change: neither its parameters nor its batch norm
statistics nor its optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmkd_rl.records import DistillationBatch, SeenBatch
from mmkd_rl.utils.precision import autocasts_to_half
from mmkd_rl.weighting.learner import DistillationView, Student

#: Function from trainable parameters of the student, by name, to the meta
#: batch with the outputs of a student with these parameters.
Observe = Callable[[Mapping[str, Tensor]], DistillationBatch]

_CHECKPOINTING = (
    "model.weighting=MMKD trains through the student's training, which "
    'activation checkpointing does not allow: turn activation_checkpointing '
    "in the config and with_cp in the student's backbone off, or use another "
    'strategy')


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the student's optimiser trains, by name."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def observer(student: Student, seen: SeenBatch) -> Observe:
    """The student's outputs on a batch as a function of its parameters."""
    model = student.model
    call = _Call(model, student.distillation)
    device = seen.batch.images.device.type

    def observe(parameters: Mapping[str, Tensor]) -> DistillationBatch:
        # Buffers as copies: batch norm writes into them.
        tensors = {
            f'model.{n}': t
            for n, t in (*parameters.items(),
                         *((n, b.clone()) for n, b in model.named_buffers()))
        }
        with student.optim_wrapper.optim_context(model), \
                _without_half(device), \
                disable_saved_tensors_hooks(_CHECKPOINTING), \
                sdpa_kernel(SDPBackend.MATH):
            return functional_call(call, tensors, (seen, ))

    return observe


def learning_rates(student: Student) -> dict[str, float]:
    """The current learning rate of each trainable parameter, by name; 0 for
    parameters that are in no optimiser.

    Raises:
        TypeError: There are several optimisers.
    """
    wrapper: OptimWrapper | OptimWrapperDict = student.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        raise TypeError(
            'MMKD reads the learning rate of one optimiser, but the config '
            'has several: give weighting.inner_lr')
    rates = {
        id(p): group['lr']
        for group in wrapper.param_groups for p in group['params']
    }
    return {name: rates.get(id(p), 0.)
            for name, p in trainable(student.model).items()}


def refuse_dead_ends(value: Tensor) -> None:
    """Check that no function in the graph is ``once_differentiable``: PyTorch
    raises only for second derivatives of the function itself, and would
    silently leave out gradients that pass through it to the weights.

    Raises:
        RuntimeError: There is such a function.
    """
    todo = [value.grad_fn]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if node is None:
            continue
        if node.name().endswith('Error'):
            raise RuntimeError('a function marked once_differentiable cannot '
                               'be differentiated twice')
        new = {n for n, _ in node.next_functions} - seen
        seen |= new
        todo.extend(new)


@contextmanager
def explained() -> Iterator[None]:
    """Explain errors of students that cannot be differentiated twice."""
    try:
        yield
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


class _Call(nn.Module):
    """Lets ``functional_call`` reach the distillation's forward pass."""

    def __init__(self, model: nn.Module,
                 distillation: DistillationView) -> None:
        super().__init__()
        self.model = model
        # A child of the model already.
        self._forward_student = distillation.forward_student

    def forward(self, seen: SeenBatch) -> DistillationBatch:
        return self._forward_student(self.model, seen)


def _without_half(device: str) -> AbstractContextManager:
    """Switch autocast to float16 off: the inner gradients have no loss scale
    against underflow. Other precisions stay."""
    return torch.autocast(device, enabled=False) \
        if autocasts_to_half(device) else nullcontext()
