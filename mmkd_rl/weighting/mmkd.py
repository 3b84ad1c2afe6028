r"""MMKD (Zhang, Chen, Wang 2023, arXiv:2306.06634): weights by meta-learning.

.. math::
    w_l = softmax(MLP_l([z_1, ..., z_M, z_S])), \quad
    w_f = softmax(MLP_f([\rho_1, ..., \rho_M]))

per sample, the MLPs' parameters phi learned so that imitating the weighted
teachers lowers the student's cross entropy on samples that it finds hard:

.. math::
    \theta_{k+1} = \theta_k - \eta \nabla_\theta L_{match}(\theta_k, w_\phi),
    \quad k = 0..K-1, \qquad \min_\phi CE(\theta_K)

with L_match = mean over the samples of alpha sum_m w_l^m D_m + beta sum_m
w_f^m MSE_m, without the labels. The student, projectors included, is put back
afterwards; here it is never changed, since the steps are taken on copies.

From the paper and its code: the input of MLP_l, K = 2 steps, a meta step every
5 iterations, Adam with 1e-3, hard samples, weights whose inputs give the
student no gradient, projectors that take part in the steps.

Departures:

- rho_m is the product, channel by channel, of the pooled and normalised
  r_m(f_S) and f_m, times their number of channels D_m. Its mean is their
  cosine. The published code feeds B x B relations between the samples of a
  batch, which ties the network to one batch size and each sample's weights to
  its neighbours.
- The inner steps are plain SGD at the student's learning rates (or
  ``inner_lr``), without its momentum and weight decay. The published code
  takes a third step, on the cross entropy, before it evaluates:
  ``ce_step=True``. It forgets in the second step that the weights depend on
  the first; here the gradient is exact.
- Hidden layers have 128 units instead of half as many as inputs, the last
  layer starts at zero (equal weights first), no weight decay.
- The buffer holds the samples of highest cross entropy of the last few
  batches instead of 256 misclassified ones, with their teachers' outputs, and
  a meta step sees 16 of them instead of 64. It costs about as much as five
  training steps of a ResNet-8 on 64 images; where the teachers are light,
  lower ``meta_batch_size`` or raise the hook's interval.
- With class maps, MLP_l sees a teacher's own logits; what completes them for
  the loss is held fixed.

Both scales of the weights are the same: the paper's sum to one, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from mmkd_rl.agent.hard_samples import HardBuffer, HardSamples
from mmkd_rl.agent.meta_learner import MetaLearner, WeightNetwork
from mmkd_rl.context import WeightingContext
from mmkd_rl.records import DistillationBatch, SeenBatch, TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.utils.pooling import mean_over_space
from mmkd_rl.weighting.base import (
    WeightingStrategy,
    equal_weights,
    require_terms,
    restrict,
)

#: From the student's trainable parameters, by name, to what a student with
#: these makes of the meta batch.
Observe = Callable[[Mapping[str, Tensor]], DistillationBatch]


@WEIGHTINGS.register_module()
class MMKD(WeightingStrategy):
    """Weights from networks that are trained through steps of the student.

    Needs :class:`MetaWeightingHook`, which trains them.

    Args:
        context: Given by the distiller.
        hidden: Width of the networks' hidden layer.
        optimizer: Config of the networks' optimiser; ``None``: Adam, 1e-3.
        inner_steps: K.
        inner_lr: eta; ``None``: the student's current learning rates.
        ce_step: Take another step, on the cross entropy, before it is
            evaluated (published code).
        meta_batch_size: Samples in a meta step.
        buffer_size: Hard samples that are kept.
        buffer_bytes: Bound on their memory.
        hard_share: How much of each batch is hard.
        scale: Without effect.

    Raises:
        ValueError: A size, number or learning rate is not positive, or there
            are no terms to weigh.
    """

    hooks = (dict(type='mmkd_rl.MetaWeightingHook'), )
    keeps_batch = True
    needs_labels = True
    needs_similarity = False

    def __init__(self,
                 context: WeightingContext,
                 hidden: int = 128,
                 optimizer: dict | None = None,
                 inner_steps: int = 2,
                 inner_lr: float | None = None,
                 ce_step: bool = False,
                 meta_batch_size: int = 16,
                 buffer_size: int = 64,
                 buffer_bytes: int = 64 * 2**20,
                 hard_share: float = 0.25,
                 scale: str = 'unit') -> None:
        super().__init__(context, scale)
        require_terms(context, type(self))
        for name, value in (('inner_steps', inner_steps), ('meta_batch_size',
                                                           meta_batch_size)):
            if value < 1:
                raise ValueError(f'weighting.{name} must be >= 1, got {value}')
        if inner_lr is not None and inner_lr <= 0:
            raise ValueError('weighting.inner_lr must be > 0 or None (the '
                             f"student's), got {inner_lr}")
        self.inner_steps, self.inner_lr = inner_steps, inner_lr
        self.ce_step = ce_step
        self.meta_batch_size = meta_batch_size
        sizes = {}
        if context.logit_weight is not None:
            sizes['logit'] = sum(
                context.task.summary_sizes(s)['logit']
                for s in (context.student, *context.teachers))
        if context.feature_weight is not None:
            sizes['feature'] = len(context.reading('features')) * sum(
                sum(t.channels) for t in context.teachers)
        self.learner = MetaLearner(
            {
                name: WeightNetwork(size, self.num_teachers, hidden)
                for name, size in sizes.items()
            }, optimizer, HardBuffer(buffer_size, buffer_bytes, hard_share))
        #: Set by the hook that trains the networks.
        self.attended = False
        self._warned = False

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, detached, in float32."""
        if not self.attended and not self._warned:
            self._warned = True
            print_log(
                'MMKD runs without MetaWeightingHook: its networks are never '
                'trained and all weights stay equal. Add '
                "dict(type='mmkd_rl.MetaWeightingHook') to custom_hooks",
                'current', logging.WARNING)
        with torch.no_grad():
            weights = self.weigh(batch)
            return replace(weights, record=-self.context.task.quality(
                batch.student, batch.truth)) if self.training else weights

    def weigh(self, batch: DistillationBatch) -> TeacherWeights:
        """The weights with their gradient, [B, M] each."""
        equal_BM = equal_weights(batch, self.num_teachers)
        networks = self.learner.networks
        dtype = self.learner.parameters()[0].dtype
        # Autocast would round the differences between teachers away.
        with torch.autocast(equal_BM.device.type, enabled=False):
            return TeacherWeights(
                networks['logit'](self._logits(batch, dtype))
                if 'logit' in networks else equal_BM,
                networks['feature'](_relations(batch, dtype))
                if 'feature' in networks else equal_BM)

    def remember(self, seen: SeenBatch, hardness_B: Tensor | None) -> None:
        """Put the hardest samples of a batch of training in the buffer.

        Args:
            seen: The batch.
            hardness_B: The record of the weights that it was trained with.
        """
        if hardness_B is not None:
            self.learner.buffer.add(HardSamples.of_batch(seen), hardness_B)

    def meta_losses(self, observe: Observe, parameters: Mapping[str, Tensor],
                    rates: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """The student's cross entropy before and after imitating.

        Args:
            observe: See above.
            parameters: theta_0, leaves that require gradients.
            rates: eta of each.

        Returns:
            CE(theta_0), and CE(theta_K) with its gradient to the networks.
        """
        theta = dict(parameters)
        first = None
        for _ in range(self.inner_steps):
            batch = observe(theta)
            if first is None:
                first = self._cross_entropy(batch).detach()
            weights = restrict(self.weigh(batch), batch.class_coverage)
            theta = _descend(theta, rates, *self._matching(batch, weights))
        if self.ce_step:
            ce = self._cross_entropy(observe(theta))
            theta = _descend(theta, rates, [ce], [torch.ones_like(ce)])
        assert first is not None
        return first, self._cross_entropy(observe(theta))

    def meta_update(self, observe: Observe, parameters: Mapping[str, Tensor],
                    rates: Mapping[str, float]) -> dict[str, float]:
        """Train the networks once.

        Args:
            observe, parameters, rates: See :meth:`meta_losses`.

        Returns:
            What to log.

        Raises:
            RuntimeError: The student cannot be differentiated twice.
        """
        if self.inner_lr is not None:
            rates = dict.fromkeys(parameters, self.inner_lr)
        with torch.enable_grad():
            before, after = self.meta_losses(observe, parameters, rates)
            if not self.learner.updates:
                _refuse_dead_ends(after)
            own = self.learner.parameters()
            found = torch.autograd.grad(after, own, allow_unused=True)
        finite, norm = self.learner.step([
            torch.zeros_like(p) if g is None else g
            for p, g in zip(own, found)
        ])
        return dict(
            loss=float(after.detach()),
            gain=float(before - after.detach()),
            grad_norm=float(norm),
            skipped=float(not finite))

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the networks."""
        self.learner.apply_(fn)

    def _cross_entropy(self, batch: DistillationBatch) -> Tensor:
        return -batch.truth.mean(
            self.context.task.quality(batch.student, batch.truth))

    def _logits(self, batch: DistillationBatch, dtype: torch.dtype) -> Tensor:
        """[z_1, ..., z_M, z_S], [B, (M + 1) C]."""
        task = self.judge
        return torch.cat([
            task.logit_summary(o, batch.truth).to(dtype)
            for o in (*batch.teachers, batch.student)
        ], 1)

    def _matching(self, batch: DistillationBatch, weights: TeacherWeights
                  ) -> tuple[list[Tensor], list[Tensor]]:
        """L_match as its gaps, [B, M] each, and what each is multiplied by.

        Apart, because the student's gradient is that of the gaps alone,
        whereas the networks' gradient is that of both.
        """
        gaps, factors = [], []
        for gap, alpha, weight in (
            (batch.gaps.logit, self.context.logit_weight, weights.logit),
            (batch.gaps.feature, self.context.feature_weight,
             weights.feature)):
            if gap is not None and alpha is not None:
                gaps.append(gap)
                factors.append(alpha * weight.to(gap.dtype) / len(gap))
        return gaps, factors


def _descend(theta: Mapping[str, Tensor], rates: Mapping[str, float],
             values: list[Tensor], factors: list[Tensor]
             ) -> dict[str, Tensor]:
    """One step down <factors, values>, factors held fixed."""
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


def _refuse_dead_ends(value: Tensor) -> None:
    """Look for functions that are ``once_differentiable``: PyTorch complains
    only where their own second derivative is asked for; what flows through
    them to the weights would be left out in silence."""
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


def _relations(batch: DistillationBatch, dtype: torch.dtype) -> Tensor:
    """[rho_1, ..., rho_M], of all levels, [B, sum_m D_m]."""
    columns = []
    for pair in (pair for levels in batch.pairs for pair in levels):
        a, b = (F.normalize(mean_over_space(x.to(dtype), pair.valid), dim=1)
                for x in (pair.student, pair.teacher))
        columns.append(a.shape[1] * a * b)
    return torch.cat(columns, 1)
