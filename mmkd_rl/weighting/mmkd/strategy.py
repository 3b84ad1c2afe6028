r"""MMKD (Zhang, Chen, Wang 2023, arXiv:2306.06634): weights by meta-learning.

.. math::
    w_l = softmax(MLP_l([z_1, ..., z_M, z_S])), \quad
    w_f = softmax(MLP_f([\rho_1, ..., \rho_M]))

per sample. The MLPs' parameters phi are trained so that steps towards the
weighted teachers lower the student's cross entropy on hard samples:

.. math::
    \theta_{k+1} = \theta_k - \eta \nabla_\theta L_{match}(\theta_k, w_\phi),
    \quad k = 0..K-1, \qquad \min_\phi CE(\theta_K)

with L_match = mean over the samples of alpha sum_m w_l^m D_m + beta sum_m
w_f^m MSE_m, without the labels. The published code restores the student,
projectors included, afterwards; here the steps are taken on copies.

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
  ``ce_step=True``. It treats the weights of the second step as independent of
  the first step; here the gradient is exact.
- Hidden layers have 128 units instead of half as many as inputs, the last
  layer starts at zero (equal weights first), no weight decay.
- The buffer holds the samples of highest cross entropy of the last few
  batches instead of 256 misclassified ones, with their teachers' outputs, and
  a meta step uses 16 of them instead of 64. It costs about as much as five
  training steps of a ResNet-8 on 64 images; with small teachers, lower
  ``meta_batch_size`` or raise the hook's interval.
- With class maps, the input of MLP_l are a teacher's own logits; the parts
  that are filled in from the student for the loss have no gradient.

Both scales of the weights are the same: the paper's weights sum to one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from mmengine.registry import OPTIMIZERS
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.options import Count, Positive, Share
from mmkd_rl.records import DistillationBatch, TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.utils.pooling import mean_over_space
from mmkd_rl.weighting.base import (
    Scale,
    WeightingStrategy,
    equal_weights,
    require_terms,
)
from mmkd_rl.weighting.mmkd.hard_samples import HardBuffer
from mmkd_rl.weighting.mmkd.learner import InnerSteps, MetaLearner
from mmkd_rl.weighting.mmkd.network import WeightNetwork


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
        ce_step: Take another step, on the cross entropy, before the student
            is evaluated (published code).
        meta_batch_size: Number of samples in a meta step.
        buffer_size: Largest number of hard samples in the buffer.
        buffer_bytes: Largest number of bytes of the buffer.
        hard_share: Share of each batch that goes to the buffer.
        scale: No effect.

    Raises:
        ConfigError: No term compares the student with each teacher.
    """

    hooks = (dict(type='mmkd_rl.MetaWeightingHook'), )
    nested = dict(optimizer=(OPTIMIZERS, 'Adam', ('params', )))
    learner: MetaLearner
    keeps_batch = True
    needs_labels = True
    takes_objects = False
    needs_similarity = False

    def __init__(self,
                 context: WeightingContext,
                 hidden: Count = 128,
                 optimizer: dict | None = None,
                 inner_steps: Count = 2,
                 inner_lr: Positive | None = None,
                 ce_step: bool = False,
                 meta_batch_size: Count = 16,
                 buffer_size: Count = 64,
                 buffer_bytes: Count = 64 * 2**20,
                 hard_share: Share = 0.25,
                 scale: Scale = 'unit') -> None:
        super().__init__(context, scale)
        require_terms(context, type(self))
        steps = InnerSteps(inner_steps, inner_lr, ce_step, meta_batch_size)
        sizes = {}
        if context.reading('logits'):
            sizes['logit'] = sum(
                context.task.summary_sizes(s)['logit']
                for s in (context.student, *context.teachers))
        if context.reading('features'):
            sizes['feature'] = len(context.reading('features')) * sum(
                sum(t.channels) for t in context.teachers)
        self.learner = MetaLearner(
            {
                name: WeightNetwork(size, self.num_teachers, hidden)
                for name, size in sizes.items()
            }, optimizer, HardBuffer(buffer_size, buffer_bytes, hard_share),
            context, self.weigh, steps)

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, detached, in float32."""
        self.learner.warn_without_hook(self)
        with torch.no_grad():
            weights = self.weigh(batch)
            return replace(weights, record=-self.context.task.quality(
                batch.student, batch.truth)) if self.training else weights

    def weigh(self, batch: DistillationBatch) -> TeacherWeights:
        """The weights with gradient, [B, M] each."""
        equal_BM = equal_weights(batch, self.num_teachers)
        networks = self.learner.by_kind
        dtype = self.learner.parameters()[0].dtype
        # Autocast would round the differences between teachers away.
        with torch.autocast(equal_BM.device.type, enabled=False):
            return TeacherWeights(
                networks['logit'](self._logits(batch, dtype))
                if 'logit' in networks else equal_BM,
                networks['feature'](_relations(batch, dtype))
                if 'feature' in networks else equal_BM)

    def _logits(self, batch: DistillationBatch, dtype: torch.dtype) -> Tensor:
        """[z_1, ..., z_M, z_S], [B, (M + 1) C]."""
        task = self.judge
        return torch.cat([
            task.logit_summary(o, batch.truth).to(dtype)
            for o in (*batch.teachers, batch.student)
        ], 1)


def _relations(batch: DistillationBatch, dtype: torch.dtype) -> Tensor:
    """[rho_1, ..., rho_M] of all levels, [B, sum_m D_m]."""
    columns = []
    for pair in (pair for levels in batch.pairs for pair in levels):
        a, b = (F.normalize(mean_over_space(x.to(dtype), pair.valid), dim=1)
                for x in (pair.student, pair.teacher))
        columns.append(a.shape[1] * a * b)
    return torch.cat(columns, 1)
