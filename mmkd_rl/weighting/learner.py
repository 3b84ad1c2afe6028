"""Learners: networks of a strategy with their own optimiser.

MTKD-RL's agent and MMKD's weight networks are learners. A strategy with
``learner`` set lists :class:`LearnerHook`, or a hook derived from it, in its
``hooks``; that hook passes each step to the learner, trains the learner at
its interval, and saves it in checkpoints.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from mmengine import dist
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmkd_rl.records import Batch, DistillationBatch, SeenBatch, TrainingStep
from mmkd_rl.utils.random_state import RandomNumbers


class DistillationView(Protocol):
    """The part of :class:`Distillation` that a learner uses."""

    #: See :attr:`Distillation.last_step`.
    last_step: TrainingStep | None

    def forward_after_step(self, model: nn.Module,
                           seen: SeenBatch) -> DistillationBatch:
        """See :meth:`Distillation.forward_after_step`."""

    def forward_student(self, model: nn.Module,
                        seen: SeenBatch) -> DistillationBatch:
        """See :meth:`Distillation.forward_student`."""

    def inner_features(self, batch: Batch) -> tuple[tuple[Tensor, ...], ...]:
        """See :meth:`Distillation.inner_features`."""


@dataclass(frozen=True)
class Student:
    """The student's model, distillation and optimiser, for learners.

    Attributes:
        model: The student's model.
        distillation: The model's child ``distillation``.
        optim_wrapper: The student's optimiser; gives precision and learning
            rates.
    """
    model: nn.Module
    distillation: DistillationView
    optim_wrapper: OptimWrapper


class Learner(ABC):
    """Networks, their optimiser, and the data that they are trained on.

    A learner is no ``nn.Module`` on purpose: its networks must not be in the
    student's optimiser, weight averages or DDP buckets.

    Args:
        networks: The trained networks.
    """

    #: The learner's name in messages, and whether that is a plural.
    noun: str = 'networks'
    plural: bool = True
    #: The learner's scalars are logged as ``LOG_NAME/NAME``.
    log_name: str = 'learner'
    #: Keys of the learner in a checkpoint, and of its networks there.
    checkpoint_key: str = 'mmkd_rl_learner'
    networks_key: str = 'networks'
    #: Options of the config that decide whether a checkpoint's networks fit.
    fitting: str = 'teachers or options'
    #: Whether an update uses all steps since the last update, so that its
    #: time grows with their number.
    learns_from_all: bool = False

    def __init__(self, networks: nn.Module) -> None:
        self.networks = networks
        #: Updates so far; while it is 0 the weights are equal.
        self.updates = 0
        #: Set by the hook that trains the learner.
        self.has_hook = False
        self._warned = False

    def __deepcopy__(self, memo: dict) -> Learner:
        """Copies of a model (EMA makes one) share its learner."""
        return self

    @property
    @abstractmethod
    def random(self) -> RandomNumbers:
        """Generators of all random numbers drawn in training."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Parts that are saved and moved beside the networks, by name in the
        checkpoint. Each part has ``state_dict`` and ``load_state_dict``; parts
        with tensors have ``apply_`` or are optimisers."""

    @abstractmethod
    def observe(self, step: TrainingStep, student: Student) -> None:
        """Store a step of the student.

        Args:
            step: The step's weights, and its batch if the strategy keeps it.
            student: The student after its update.
        """

    @abstractmethod
    def update(self, student: Student) -> dict[str, float]:
        """Train the networks once.

        Args:
            student: The present student; not changed.

        Returns:
            Scalars to log; empty if there was no data.
        """

    def end_epoch(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called at the end of each epoch, before checkpoints are written."""

    def warn_without_hook(self, strategy: Any) -> None:
        """Warn once that no hook trains the learner.

        Args:
            strategy: The learner's :class:`WeightingStrategy`.
        """
        if self.has_hook or self._warned:
            return
        self._warned = True
        name = type(strategy).__name__
        hook = next((h['type'] for h in strategy.hooks), 'mmkd_rl.LearnerHook')
        print_log(
            f"{name} runs without {hook.rpartition('.')[2]}: its {self.noun} "
            f"{'are' if self.plural else 'is'} never trained and all weights "
            f"stay equal. Add dict(type='{hook}') to custom_hooks",
            'current', logging.WARNING)

    def synchronize(self) -> None:
        """Broadcast the first process's networks to all processes."""
        for tensor in self.networks.state_dict().values():
            dist.broadcast(tensor)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Like ``nn.Module._apply``: change device or precision."""
        self.networks._apply(fn)
        for part in self.parts().values():
            _move(part, fn)

    def tensors(self) -> list[Tensor]:
        """All tensors: of networks, optimisers and stored steps."""
        found: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.apply_(collect)
        return found

    def nbytes_after(self, steps: int) -> int:
        """Bytes of all tensors after some steps since the last update; at
        least one step must have been observed.

        Args:
            steps: Number of steps.
        """
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def state_dict(self) -> dict:
        """State as tensors and plain values only."""
        parts = {name: part.state_dict()
                 for name, part in self.parts().items()}
        return {
            self.networks_key: {
                k: v.cpu() for k, v in self.networks.state_dict().items()},
            # A part without a state, such as most rewards, leaves no entry.
            **{name: state for name, state in parts.items() if state != {}},
            'updates': self.updates,
            'random': self.random.state_dict()
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: The state does not fit the networks or parts.
        """
        try:
            self.networks.load_state_dict(state[self.networks_key])
        except RuntimeError as error:
            does = 'do' if self.plural else 'does'
            raise ValueError(
                f"the checkpoint's {self.noun} {does} not fit this config "
                f'(other {self.fitting}): {error}') from error
        device = next(self.networks.parameters()).device
        for name, part in self.parts().items():
            part.load_state_dict(state.get(name, {}))
            if not isinstance(part, torch.optim.Optimizer):
                _move(part, lambda t: t.to(device))
        self.updates = state['updates']
        if 'random' in state:  # not in checkpoints of 0.1's first layout
            self.random.load_state_dict(state['random'])


def move_optimizer(optimizer: torch.optim.Optimizer,
                   fn: Callable[[Tensor], Tensor]) -> None:
    """Move an optimiser's state. Steps stay: PyTorch keeps them on the CPU."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and name != 'step':
                state[name] = fn(value)


def _move(part: Any, fn: Callable[[Tensor], Tensor]) -> None:
    if isinstance(part, torch.optim.Optimizer):
        move_optimizer(part, fn)
    elif hasattr(part, 'apply_'):
        part.apply_(fn)
