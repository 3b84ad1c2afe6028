r"""Trains MMKD's weight networks.

A meta step takes K steps of a copy of the student on hard samples, with the
weighted matching loss, and trains the networks to lower the cross entropy of
the copy after these steps:

.. math::
    \theta_{k+1} = \theta_k - \eta \nabla_\theta L_{match}(\theta_k, w_\phi),
    \qquad \min_\phi CE(\theta_K)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mmengine.optim  # noqa: F401  (registers PyTorch's optimisers)
import torch
from mmengine import dist
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn

from mmkd_rl.context import WeightingContext
from mmkd_rl.records import (
    Batch,
    DistillationBatch,
    SeenBatch,
    TeacherStep,
    TeacherWeights,
    TrainingStep,
)
from mmkd_rl.registry import build
from mmkd_rl.utils.random_state import RandomNumbers
from mmkd_rl.weighting.base import restrict
from mmkd_rl.weighting.learner import Learner, Student
from mmkd_rl.weighting.mmkd.hard_samples import HardBuffer, HardSamples
from mmkd_rl.weighting.mmkd.inner_student import (
    Observe,
    explained,
    learning_rates,
    observer,
    refuse_dead_ends,
    trainable,
)
from mmkd_rl.weighting.mmkd.network import WeightNetwork


@dataclass(frozen=True)
class InnerSteps:
    """The steps that a copy of the student takes.

    Attributes:
        count: K.
        lr: eta; ``None``: the student's current learning rates.
        ce_step: Take another step, on the cross entropy, before the student
            is evaluated (published code).
        samples: Hard samples in a meta step.
    """
    count: int = 2
    lr: float | None = None
    ce_step: bool = False
    samples: int = 16


class MetaLearner(Learner):
    """Weight networks, their optimiser, and the buffer of hard samples.

    Args:
        networks: Networks by name: ``'logit'``, ``'feature'`` or both.
        optimizer: Config of the optimiser, without the parameters; default
            type and rate: Adam, 1e-3.
        buffer: Hard samples.
        context: Loss weights and the task.
        weigh: The strategy's weights of a batch, with gradient.
        steps: The inner steps.

    Raises:
        ConfigError: The optimiser does not exist or lacks an option.
    """

    noun = 'weight networks'
    log_name = 'meta'
    checkpoint_key = 'mmkd_rl_meta'
    fitting = 'teachers, losses or hidden'

    def __init__(self, networks: dict[str, WeightNetwork],
                 optimizer: dict | None, buffer: HardBuffer,
                 context: WeightingContext,
                 weigh: Callable[[DistillationBatch], TeacherWeights],
                 steps: InnerSteps) -> None:
        self.by_kind = nn.ModuleDict(networks)
        super().__init__(self.by_kind)
        self.optimizer: torch.optim.Optimizer = build(
            OPTIMIZERS, {'type': 'Adam', 'lr': 1e-3, **(optimizer or {})},
            'optimizer', params=self.parameters())
        self.buffer = buffer
        self.context, self.weigh, self.steps = context, weigh, steps

    @property
    def random(self) -> RandomNumbers:
        """Generators with which samples of the buffer are drawn."""
        return self.buffer.random

    def parts(self) -> dict[str, Any]:
        """See :meth:`Learner.parts`."""
        return dict(optimizer=self.optimizer, buffer=self.buffer)

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of the networks."""
        return list(self.networks.parameters())

    def observe(self, step: TrainingStep, student: Student) -> None:
        """Put the hardest samples of a step into the buffer."""
        if step.seen is not None:
            self.remember(step.seen, step.weights.record)

    def remember(self, seen: SeenBatch, hardness_B: Tensor | None) -> None:
        """Put the hardest samples of a training batch into the buffer.

        Args:
            seen: The batch.
            hardness_B: The student's cross entropies, from the record of the
                batch's weights; ``None``: do nothing.
        """
        if hardness_B is not None:
            self.buffer.add(HardSamples.of_batch(seen), hardness_B)

    def end_epoch(self) -> None:
        """Empty the buffer, so that a checkpoint at the end of an epoch is
        small and valid for all processes."""
        self.buffer.clear()

    def update(self, student: Student) -> dict[str, float]:
        """Take a meta step on samples of the buffer.

        Args:
            student: The present student; not changed.

        Returns:
            Scalars to log; empty with one teacher, whose weight is 1 anyway,
            and while the buffer has fewer than two samples.

        Raises:
            RuntimeError: The student cannot be differentiated twice.
        """
        # Batch norm of pooled features fails on a single sample.
        if len(self.context.teachers) == 1 or len(self.buffer) < 2:
            return {}
        samples = self.buffer.draw(self.steps.samples)
        batch = Batch(samples.inputs)
        seen = SeenBatch(
            batch, self.context.task.truth_of(samples.targets),
            TeacherStep(samples.teachers,
                        student.distillation.inner_features(batch)))
        theta = trainable(student.model)
        rates = learning_rates(student) if self.steps.lr is None else \
            dict.fromkeys(theta, self.steps.lr)
        with explained(), torch.enable_grad():
            before, after = self.meta_losses(
                observer(student, seen),
                {n: p.detach().requires_grad_() for n, p in theta.items()},
                rates)
            if not self.updates:
                refuse_dead_ends(after)
            own = self.parameters()
            found = torch.autograd.grad(after, own, allow_unused=True)
        finite, norm = self.step([
            torch.zeros_like(p) if g is None else g
            for p, g in zip(own, found)
        ])
        return dict(
            loss=float(after.detach()),
            gain=float(before - after.detach()),
            grad_norm=float(norm),
            skipped=float(not finite))

    def meta_losses(self, observe: Observe, parameters: Mapping[str, Tensor],
                    rates: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """The student's cross entropy before and after the inner steps.

        Args:
            observe: See :data:`Observe`.
            parameters: theta_0, leaves that require gradients.
            rates: eta of each parameter.

        Returns:
            CE(theta_0), and CE(theta_K) with gradient to the networks.
        """
        theta = dict(parameters)
        first = None
        for _ in range(self.steps.count):
            batch = observe(theta)
            if first is None:
                first = self._cross_entropy(batch).detach()
            weights = restrict(self.weigh(batch), batch.class_coverage)
            theta = _descend(theta, rates, *self._matching(batch, weights))
        if self.steps.ce_step:
            ce = self._cross_entropy(observe(theta))
            theta = _descend(theta, rates, [ce], [torch.ones_like(ce)])
        assert first is not None
        return first, self._cross_entropy(observe(theta))

    def step(self, gradients: Sequence[Tensor]) -> tuple[bool, Tensor]:
        """One step of the optimiser on the mean over all processes.

        Args:
            gradients: Gradient of each parameter.

        Returns:
            Whether the gradients were finite (if not, nothing was changed);
            and their norm.
        """
        dist.all_reduce_params(list(gradients), op='mean')
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        finite = bool(norm.isfinite())
        if finite:
            for parameter, gradient in zip(self.parameters(), gradients):
                parameter.grad = gradient
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.updates += 1
        return finite, norm

    def _cross_entropy(self, batch: DistillationBatch) -> Tensor:
        return -batch.truth.mean(
            self.context.task.quality(batch.student, batch.truth))

    def _matching(self, batch: DistillationBatch, weights: TeacherWeights
                  ) -> tuple[list[Tensor], list[Tensor]]:
        """L_match as gaps, [B, M] each, and their factors.

        They are separate, because the student is differentiated through the
        gaps only, the networks through both.
        """
        gaps, factors = [], []
        for gap, alpha, weight in (
            (batch.gaps.logit, self.context.logit_weight, weights.logit),
            (batch.gaps.feature, self.context.feature_weight,
             weights.feature)):
            if gap is not None:
                gaps.append(gap)
                factors.append(alpha * weight.to(gap.dtype) / len(gap))
        return gaps, factors


def _descend(theta: Mapping[str, Tensor], rates: Mapping[str, float],
             values: list[Tensor], factors: list[Tensor]
             ) -> dict[str, Tensor]:
    """One gradient step on <factors, values> with constant factors."""
    slopes = torch.autograd.grad(
        values,
        list(theta.values()),
        factors,
        create_graph=True,
        allow_unused=True)
    return {
        name: value if slope is None else value - rates[name] * slope
        for (name, value), slope in zip(theta.items(), slopes)
    }
