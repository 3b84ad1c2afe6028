r"""The model wrapper: asks its collaborators and adds up what they return.

.. math::
    L = L_S + \alpha \sum_m w_l^m D_m + \beta \sum_m w_f^m MSE_m

(MTKD-RL, Eq. 2), L_S being the student's own losses as it computes them alone.
Sums over teachers are taken per sample, then averaged over the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd_rl.flow import KnowledgeFlow
from mmkd_rl.records import (
    DistillationBatch,
    Gaps,
    ModelOutput,
    ModelSpec,
    TeacherWeights,
)
from mmkd_rl.registry import (
    MODELS,
    TASKS,
    WEIGHTINGS,
    build,
    construct,
    refuse_unknown,
)
from mmkd_rl.taps import Projector
from mmkd_rl.tasks import Task
from mmkd_rl.teachers import Normalization, TeacherPool
from mmkd_rl.teachers.loading import build_network, load_model_config
from mmkd_rl.teachers.runtime import spec_of
from mmkd_rl.utils import activation_checkpointing
from mmkd_rl.utils.batch_norm import frozen_statistics
from mmkd_rl.utils.originals import Original
from mmkd_rl.weighting import (
    WeightingContext,
    WeightingStrategy,
    restrict,
)

activation_checkpointing.use_non_reentrant()


@MODELS.register_module()
class MultiTeacherDistiller(BaseModel):
    """Train a student with several teachers; be the student otherwise.

    Only the student, the projectors and what a strategy trains through the
    student's loss are in the module tree: ``student.*`` in a checkpoint is the
    plain student.

    Args:
        student: Config of the student's model: a dict, a path, or a name in
            an installed package, see :func:`load_model_config`.
        teachers: See :class:`TeacherPool`.
        logit_loss: Config of the logit loss; ``None`` turns it off.
        feature_loss: Config of the feature loss; ``None`` turns it off.
        weighting: Config of the strategy that weighs the teachers.
        projector: Arguments of :class:`Projector`.
        taps: The student's, see :meth:`Task.taps`.
        task: Config of the task adapter.
        probe_size: Side, (H, W) or (C, H, W) of the images on which sizes are
            found when the model is built. Any size does for most networks;
            those that accept only one need theirs.
        data_preprocessor: The student's, as in its own config.
        init_cfg: See ``mmengine.model.BaseModule``.
        **unknown: None: anything else ends with a message.

    Raises:
        ValueError, TypeError, FileNotFoundError: Whatever is wrong with the
            config; the message names the key and the value.
    """

    def __init__(self,
                 student: dict | str,
                 teachers: Sequence[dict],
                 logit_loss: dict | None = dict(type='KDLoss'),
                 feature_loss: dict | None = dict(type='FitNetLoss'),
                 weighting: dict = dict(type='AverageWeighting'),
                 projector: dict | None = None,
                 taps: dict | None = None,
                 task: dict = dict(type='ClassificationTask'),
                 probe_size: int | tuple[int, ...] = 64,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None,
                 **unknown: Any) -> None:
        # Python's own message would not say what there is.
        refuse_unknown(unknown, 'model', type(self).__name__,
                       _option_names(type(self)))
        adapter: Task = build(TASKS, task, 'model.task')
        network = _build_student(student, data_preprocessor, adapter)
        # The student's own preprocessor is used, so that its batch
        # augmentations go on working.
        super().__init__(
            data_preprocessor=network.data_preprocessor, init_cfg=init_cfg)
        self.task = adapter
        self.student = network
        self.student_taps = adapter.taps(network, taps, 'student')
        self.teachers = TeacherPool(teachers, adapter,
                                    Normalization.of(self.data_preprocessor))
        student_spec, teacher_specs = self._probe(probe_size)
        for module in self.student.modules():
            if isinstance(module, KnowledgeFlow) and \
                    module.waits_for_teachers:
                module.borrow(self.teachers)
        teacher_specs = self.teachers.match_classes(
            teacher_specs, student_spec.num_classes, logit_loss is not None)

        if logit_loss is None and feature_loss is None:
            raise ValueError('logit_loss and feature_loss are both None: '
                             'there is nothing to distil')
        self.logit_loss = None if logit_loss is None else build(
            MODELS, logit_loss, 'model.logit_loss')
        self.feature_loss = None if feature_loss is None else build(
            MODELS, feature_loss, 'model.feature_loss')
        self.teachers.watch_features = self.feature_loss is not None
        if hasattr(self.feature_loss, 'setup'):
            self.feature_loss.setup(student_spec, teacher_specs)
        self.projectors = nn.ModuleList(
            construct(
                Projector, {} if projector is None else projector,
                'model.projector', student=student_spec, teacher=t)
            for t in teacher_specs if self.feature_loss is not None)
        context = WeightingContext(
            student=student_spec,
            teachers=teacher_specs,
            logit_weight=_weight(self.logit_loss),
            feature_weight=_weight(self.feature_loss),
            temperature=getattr(self.logit_loss, 'temperature', 4.),
            classify=self.teachers.classify,
            logit_loss=self.logit_loss)
        self.weighting: WeightingStrategy = build(
            WEIGHTINGS, weighting, 'model.weighting', context=context)
        for teacher in teacher_specs:
            if self.weighting.needs_classes and \
                    teacher.num_classes != student_spec.num_classes:
                others = sorted(
                    name for name, kind in WEIGHTINGS.module_dict.items()
                    if not getattr(kind, 'needs_classes', True))
                raise ValueError(
                    f'model.weighting.type={type(self.weighting).__name__} '
                    f'looks at classes, but teacher {teacher.name!r} has '
                    f'{teacher.num_classes} and the student '
                    f'{student_spec.num_classes}; give the teacher '
                    'class_map=[...], or use a weighting of a type in '
                    f'{others}')
        #: Weights of the last training batch, detached, for whoever reports.
        self.last_weights: TeacherWeights | None = None
        self._is_original: Original | None = Original()
        #: Images, targets and teachers' outputs of that batch, kept only for
        #: a strategy that wants to look again after the student's update.
        self._last: tuple[Tensor, Tensor, tuple[ModelOutput, ...]] | None = \
            None

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Their names, in the order of the weights' columns."""
        return self.teachers.names

    def forward(self,
                inputs: Tensor,
                data_samples: Sequence | None = None,
                mode: str = 'tensor'):
        """As every OpenMMLab model.

        Args:
            inputs: Preprocessed images, [B, 3, H, W].
            data_samples: Their annotations.
            mode: ``'loss'``: the dict of losses of a distillation step;
                ``'predict'`` and ``'tensor'``: the student's, untouched.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples or ())
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict:
        """The student's losses and ``loss_logit``, ``loss_feature``."""
        teachers = self.teachers(inputs)
        losses, student = self.task.student_step(
            self.student, self.student_taps, inputs, data_samples)
        batch = self._batch(student, teachers, self.task.targets(data_samples))
        weights = restrict(self.weighting(batch), batch.knows)
        self.last_weights = weights.detach()
        if 'loss' in losses:
            # MMEngine logs the sum of all under this name.
            losses['loss_student'] = losses.pop('loss')
        if self.weighting.needs_second_look:
            self._last = inputs, batch.targets, teachers
        for name, term, gap_BM, weights_BM in (
            ('loss_logit', self.logit_loss, batch.gaps.logit, weights.logit),
            ('loss_feature', self.feature_loss, batch.gaps.feature,
             weights.feature)):
            if gap_BM is not None:
                losses[name] = term.loss_weight * (weights_BM *
                                                   gap_BM).sum(1).mean()
        losses.update(self.weighting.losses(batch, weights))
        return losses

    @torch.no_grad()
    def look_again(self) -> DistillationBatch | None:
        """The last training batch as the student sees it now.

        Costs one forward pass of the student; the teachers' outputs were
        kept. The student runs as in training, but its batch norm statistics
        stay as they are.
        """
        last = self.take_last()
        if last is None:
            return None
        with frozen_statistics(self):
            return self.observe(*last)

    def take_last(
            self) -> tuple[Tensor, Tensor, tuple[ModelOutput, ...]] | None:
        """Images, targets and teachers' outputs of the last training batch,
        once, if the strategy wants a second look."""
        last, self._last = self._last, None
        return last

    def observe(self, inputs: Tensor, targets: Tensor,
                teachers: tuple[ModelOutput, ...]) -> DistillationBatch:
        """What the student makes of a batch that the teachers have seen.

        Args:
            inputs: Preprocessed images.
            targets: As :meth:`Task.targets` returns them.
            teachers: Their outputs, as the pool returned them.
        """
        student = self.task.infer(self.student, self.student_taps, inputs)
        return self._batch(student, teachers, targets)

    def _batch(self, student: ModelOutput, teachers: tuple[ModelOutput, ...],
               targets: Tensor) -> DistillationBatch:
        """Everybody's output with how far the student is from each teacher."""
        verdicts = self.teachers.verdicts(teachers)
        teachers = self.teachers.align(teachers, student.logits,
                                       self.weighting.context.temperature)
        logit = feature = similarity = None
        pairs: tuple[tuple[Tensor, Tensor], ...] = ()
        if self.logit_loss is not None:
            logit = self.logit_loss(
                student.logits, torch.stack([t.logits for t in teachers], 1),
                targets)
        if self.feature_loss is not None:
            pairs = tuple(
                projector(student.feature, t.feature)
                for projector, t in zip(self.projectors, teachers))
            feature = self.feature_loss(pairs, targets)
            if self.weighting.needs_similarity:
                similarity = _similarity(pairs)
        return DistillationBatch(
            student, teachers, targets, Gaps(logit, feature, similarity),
            pairs, self.task.cross_entropy, verdicts,
            self.teachers.knows(targets))

    def _apply(self, fn: Callable, recurse: bool = True):
        """Move teachers and agent along; they are not in the tree."""
        super()._apply(fn, recurse)
        if self._is_original is not None:
            self.teachers.apply_(fn)
            self.weighting.apply_(fn)
        return self

    @torch.no_grad()
    def _probe(self, size: int | tuple[int, ...]
               ) -> tuple[ModelSpec, tuple[ModelSpec, ...]]:
        """Run everybody once, on two grey images, to learn the sizes.

        Raises:
            ValueError: Somebody cannot run on them.
        """
        shape = (size, size) if isinstance(size, int) else tuple(size)
        images = torch.zeros(2, *(3, *shape)[-3:])
        self.student.eval()
        try:
            output = self.task.infer(self.student, self.student_taps, images)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f'student fails on images of shape {tuple(images.shape)}: '
                f'{error}; if it needs another size, set model.probe_size'
            ) from error
        finally:
            self.student.train()
        student = spec_of('student', output)
        return student, self.teachers.probe(images)


def _build_student(cfg: dict | str, preprocessor: dict | None,
                   task: Task) -> BaseModel:
    model, scope = load_model_config(cfg, 'model.student', keep_flow=True)
    if preprocessor is not None:
        model['data_preprocessor'] = preprocessor
    if scope is None:
        current = DefaultScope.get_current_instance()
        scope = current and current.scope_name
    if str(model.get('type')).rpartition('.')[2] == 'TimmClassifier':
        # MMPretrain's does not find its own weights inside another model.
        model['type'] = 'mmkd_rl.TimmClassifier'
    return build_network(model, task.scope_for(scope), 'model.student')


def _option_names(kind: type) -> list[str]:
    return [
        p.name for p in inspect.signature(kind).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]


def _weight(loss: Any) -> float | None:
    return None if loss is None else loss.loss_weight


@torch.no_grad()
def _similarity(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """cos(r_m(f_S), f_m) of the features pooled over space, [B, M]."""
    columns = []
    for projected, target in pairs:
        a, b = (x.flatten(2).mean(2) if x.ndim > 2 else x
                for x in (projected.float(), target.float()))
        columns.append(F.cosine_similarity(a, b, dim=1))
    return torch.stack(columns, 1)
