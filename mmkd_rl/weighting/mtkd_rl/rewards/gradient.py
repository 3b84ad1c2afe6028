r"""Agreement with the model's own loss, whatever that loss is.

.. math::
    R^l_m = \langle \nabla_z L_S, \nabla_z G^l_m \rangle, \qquad
    R^f_m = \langle \nabla_F L_S, \nabla_F G^f_m \rangle

at the student's tapped logits z and features F, for the gaps G^l of the terms
that read logits and G^f of those that read features: positive where a step
towards teacher m lowers the student's own loss. Neither labels nor class
scores are read, so that the rule serves segmentors and detectors, and teachers
whose classes are not the student's. For a classifier with KD,
:class:`AgreementReward` has the same R^l from a formula.

**The gradient of the own loss** comes from the ordinary backward pass: hooks
on z and F record the gradient g of the total loss, whose distillation part is
known and subtracted,

.. math::
    \nabla_F L_S = \frac{g_F}{c} - \frac1N \sum_m \beta w^f_m \nabla_F G^f_m
        - \frac1N J^T \sum_m \alpha w^l_m \nabla_z G^l_m

with c the factor by which the optimiser scales the loss (mixed precision,
accumulated gradients) and J the Jacobian of the head from F to z. The cost:
M + 1 backward passes through the projectors and terms, one through the
student's head for the last part (only where logits are distilled, too), and M
maps of the size of F that are kept until the backward pass. Gradients that are
not finite (mixed precision, a scale that was too large) give reward zero.

Not in the paper; an option beside the label-based rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.options import ConfigError
from mmkd_rl.records import DistillationBatch
from mmkd_rl.registry import REWARDS
from mmkd_rl.utils.gradients import float32_gradients
from mmkd_rl.weighting.mtkd_rl.reward import DeferredReward, Step

#: Maps of one kind, one a level.
Levels = tuple[Tensor, ...]


@dataclass(frozen=True)
class Watch:
    """Gradients of one kind (at logits or at features) in one step.

    Attributes:
        pulls: Gradient of each teacher's gap, [M][L].
        share: The distillation losses' part of the total gradient, divided by
            the loss scale, one a level.
        images: Number of images by which the losses are divided.
        seen: Gradient of the total loss at each level, put in by a hook in
            the backward pass.
    """
    pulls: tuple[Levels, ...]
    share: Levels
    images: Tensor
    seen: dict[int, Tensor] = field(default_factory=dict)

    def hook(self, levels: Levels) -> None:
        """Record the gradients at these tensors. Later calls replace earlier
        ones: the ordinary backward pass is the last."""
        for index, level in enumerate(levels):
            level.register_hook(
                lambda g, index=index: self.seen.__setitem__(index, g))

    def reward(self, scale: Tensor) -> Tensor:
        """R, [B, M]."""
        # The hook of a level that no loss reads is not called.
        own = [self.images * (self.seen[i].float() / scale - share)
               if i in self.seen else torch.zeros_like(share)
               for i, share in enumerate(self.share)]
        return torch.stack([
            sum(((a * b).flatten(1).sum(1) for a, b in zip(own, pull)),
                own[0].new_zeros(())) for pull in self.pulls], 1)


@REWARDS.register_module()
class GradientReward(DeferredReward):
    """<grad L_S, grad G_m> at the student's tapped tensors.

    Args:
        context: Given by the distiller.
    """

    works_without_logits = True

    def __init__(self, context: WeightingContext) -> None:
        super().__init__(context)
        if not any(t.reads in ('logits', 'features') for t in context.terms):
            raise ConfigError('GradientReward needs terms that compare the '
                              'student with each teacher')
        if context.has_mixtures:
            softmax = context.task.judge is not None and context.task.softmax
            raise ConfigError(
                'GradientReward would take the gradient of terms that read '
                "all teachers at once for that of the student's own loss; "
                'leave these terms out' + (
                    ", or use reward=dict(type='AgreementReward')"
                    if softmax else ''))

    def watch(self, batch: DistillationBatch, step: Step
              ) -> tuple[Watch, ...] | None:
        """Take the gaps' gradients, and install hooks for the backward pass.

        Args:
            batch: The batch, with the student's graph.
            step: The weights as the student's step uses them.

        Returns:
            Watches of logits and of features, of those that are distilled;
            ``None``: there is no gradient.
        """
        student, gaps = batch.student, batch.gaps
        images = batch.truth.images_in_mean(len(step.weights))
        watches = []
        scores: Levels = ()
        at_logits: Levels | None = None
        for kind, gap_BM, levels, weight in (
                (0, gaps.logit, student.predictions, self.logit_weight),
                (1, gaps.feature, student.features, self.feature_weight)):
            if gap_BM is None:
                continue
            # Frozen stages get no gradient.
            levels = tuple(x for x in levels if x.requires_grad)
            if not gap_BM.requires_grad or not levels:
                return None
            pulls = _pulls(gap_BM, levels)
            # Not a sum of the pulls: batch norm couples the images of a
            # batch, so that each depends on the weights of all.
            share = _gradient(gap_BM, levels,
                              weight * step.weights[:, kind] / images)
            if kind and at_logits is not None:
                share = _added(share, float32_gradients(
                    scores, levels, at_logits, allow_unused=True))
            if not kind:
                scores, at_logits = levels, share
            watch = Watch(pulls, share, images)
            watch.hook(levels)
            watches.append(watch)
        return tuple(watches)

    def earned(self, watched: Sequence[Watch], scale: Tensor) -> Tensor | None:
        """R after the backward pass, [B, 2, M], or [B, M] where only logits or
        only features are distilled; ``None``: there was no backward pass.

        Args:
            watched: From :meth:`watch`.
            scale: c, a scalar.
        """
        if not all(watch.seen for watch in watched):
            return None
        rewards = [watch.reward(scale) for watch in watched]
        reward = rewards[0] if len(rewards) == 1 else torch.stack(rewards, 1)
        return torch.where(reward.isfinite(), reward, 0.)


def _pulls(gap_BM: Tensor, levels: Levels) -> tuple[Levels, ...]:
    """Gradient of each column of the gaps at each level."""
    # A unit vector selects a column: slices under no_grad have no graph.
    return tuple(_gradient(gap_BM, levels, one_M.expand_as(gap_BM))
                 for one_M in torch.eye(gap_BM.shape[1],
                                        device=gap_BM.device))


def _gradient(gap_BM: Tensor, levels: Levels, weights_BM: Tensor) -> Levels:
    """Gradient of the weighted sum of the gaps, in float32."""
    # Zeros at levels that a teacher has not.
    return float32_gradients(  # type: ignore[return-value]
        [gap_BM], levels, [weights_BM], allow_unused=True,
        materialize_grads=True)


def _added(a: Levels, b: Sequence[Tensor | None]) -> Levels:
    return tuple(x if y is None else x + y for x, y in zip(a, b))
