r"""CA-MKD (Zhang, Chen and Wang, ICASSP 2022): teachers that are right
about the label weigh more.

.. math::
    w_l^m = \frac{1 - softmax_m CE(z_m, y)}{M - 1}, \qquad
    w_f^m = \frac{1 - softmax_m CE(c_m(r_m(F_S)), y)}{M - 1}

per sample. c_m is the classifier of teacher m, run on the projected feature of
the student: the better it classifies the student's feature, the larger the
teacher's weight. M = 1 gives w = 1.

In the published code the gradient of the feature loss also flows through w_f,
into projector and student: ``detach_feature=False``. Then the loss also falls
if the student makes a teacher's classifier wrong where that teacher's features
are far; this cost 2.6 points in our short CIFAR-100 run
(docs/results/cifar100.md), so it is off by default. The paper's weights sum to
one, so both scales are the same; the published code divides both losses by M
once more, which is ``loss_weight / M`` here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.losses import mapped_shape
from mmkd_rl.options import ConfigError
from mmkd_rl.records import DistillationBatch, Output, TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.utils.precision import autocasts_to_half
from mmkd_rl.weighting.base import (
    Scale,
    WeightingStrategy,
    confidence,
    cross_entropies,
)


@WEIGHTINGS.register_module()
class CAMKD(WeightingStrategy):
    """Weights from cross entropies with the labels.

    Args:
        context: Given by the distiller.
        feature: Input of a teacher's classifier for the weights of the feature
            loss: ``'student'``: the projected student feature; ``'teacher'``:
            the teacher's own feature, which gives the logits' weights.
        detach_feature: Detach the feature weights from the feature loss;
            ``False``: as in the published code.
        scale: No effect: the paper's weights sum to one.

    Raises:
        ConfigError: With ``feature='student'`` the classifier of a teacher
            cannot be run alone.
    """

    needs_labels = True
    needs_similarity = False

    def __init__(self,
                 context: WeightingContext,
                 feature: Literal['student', 'teacher'] = 'student',
                 detach_feature: bool = True,
                 scale: Scale = 'unit') -> None:
        super().__init__(context, scale)
        self.detach_feature = detach_feature
        self.reads_student = feature == 'student' and \
            bool(context.reading('features'))
        if self.reads_student and context.task.judge is not None:
            self._try_classifiers()

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, in float32; those of the features with the
        student's gradient unless they are detached."""
        with torch.no_grad():
            logit_BM = confidence(
                cross_entropies(self.context.task, batch, batch.teachers))
        if not self.reads_student or not batch.pairs:
            return TeacherWeights(logit_BM, logit_BM)
        # Classifiers read the deepest level.
        mapped = [levels[-1].student_as_teacher() for levels in batch.pairs]
        if self.detach_feature:
            mapped = [m.detach() for m in mapped]
        feature_BM = confidence(
            cross_entropies(
                self.context.task, batch,
                [Output(logits=(self._classify(i, m).float(), ))
                 for i, m in enumerate(mapped)]))
        return TeacherWeights(logit_BM, feature_BM)

    def _classify(self, index: int, feature: Tensor) -> Tensor:
        classify = self.context.classify
        assert classify is not None
        device = feature.device.type
        if not autocasts_to_half(device):
            return classify(index, feature)
        # In float16 the scores of the student's feature can overflow, which
        # would make all weights NaN.
        with torch.autocast(device, enabled=False):
            return classify(index, feature.float())

    @torch.no_grad()
    def _try_classifiers(self) -> None:
        """Check before training that each classifier runs alone on features
        of the projectors' shape."""
        context = self.context
        for index, teacher in enumerate(context.teachers):
            if context.classify is None:
                raise _refusal(teacher.name, 'there is none')
            shape = mapped_shape(context.student.features[-1],
                                 teacher.features[-1])
            try:
                context.classify(index, torch.zeros(2, *shape))
            except torch.OutOfMemoryError:
                raise
            except (ValueError, RuntimeError, AssertionError) as error:
                # RuntimeError: shapes do not fit, for example a teacher's map
                # was pooled because the student's feature is a vector.
                raise _refusal(
                    teacher.name, f'on features of shape {shape}, as the '
                    f'projector gives them: {error}') from error


def _refusal(name: str, reason: str) -> ConfigError:
    return ConfigError(
        'feature', f"'student' runs the classifier of teacher {name!r} on "
        f"mapped features, which fails: {reason}. Set feature='teacher' to "
        'weigh features as logits')
