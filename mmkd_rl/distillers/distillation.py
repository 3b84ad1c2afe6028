r"""The child module that computes the distillation losses of a model.

.. math::
    L = L_S + \sum_k \lambda_k \, mean_i \sum_m w^m_{k,i} G^m_{k,i}

(MTKD-RL, Eq. 2, with any number of terms k): L_S are the student's own losses,
G the terms' gaps, lambda their loss weights (alpha and beta), w the strategy's
weights for logits or features, whichever the term reads. The sum over teachers
is taken for each sample, then averaged over the images.

The model's class is not changed. A hook before its forward pass in
``mode='loss'`` runs the teachers and installs the student's taps; a hook after
it adds the distillation losses to the dict of losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_rl.distillers.checkpoints import NameHooks
from mmkd_rl.distillers.gaps import mean_gap, similarity
from mmkd_rl.distillers.log_names import log_names, numbered, weight_name
from mmkd_rl.export.student import DISTILLATION
from mmkd_rl.losses import DistillationTerm, MixtureTerm
from mmkd_rl.options import ConfigError
from mmkd_rl.records import (
    Batch,
    DistillationBatch,
    Gaps,
    LossScale,
    Output,
    OutputSpec,
    Pairs,
    SeenBatch,
    TeacherStep,
    TeacherWeights,
    TrainingStep,
    Truth,
    ViewKey,
)
from mmkd_rl.taps import OutputTaps, Recording
from mmkd_rl.tasks import LogitTask, Task
from mmkd_rl.teachers import TeacherBorrower, TeacherPool
from mmkd_rl.utils.batch_norm import frozen_statistics
from mmkd_rl.utils.forward_hooks import (
    argument,
    computes_losses,
    sum_of_losses,
    with_losses,
)
from mmkd_rl.utils.originals import Original
from mmkd_rl.weighting import WeightingStrategy, restrict

#: The child's name in the model, and so the prefix of its weights.
NAME = DISTILLATION


class Distillation(nn.Module):
    """Holds the teachers of a model and adds the distillation losses.

    The module tree has only modules that the student's optimiser trains:
    projectors, and modules that a strategy trains with the student's loss. No
    name in it may contain ``head``, ``backbone``, ``neck``, ``norm`` or
    ``pos_embed``, which ``paramwise_cfg.custom_keys`` look for.

    Args:
        task: Adapter of the student's and the teachers' kind of network.
        taps: Taps of the student.
        teachers: The teachers.
        specs: Sizes of the teachers' outputs.
        terms: Terms that compare the student with each teacher.
        mixtures: Terms of the config that compare the student with the
            teachers' mixture.
        weighting: The strategy.
        borrowers: Parts of the student that read teachers' inner layers.
    """

    def __init__(self, task: Task, taps: OutputTaps, teachers: TeacherPool,
                 specs: Sequence[OutputSpec],
                 terms: Sequence[DistillationTerm],
                 mixtures: Sequence[MixtureTerm],
                 weighting: WeightingStrategy,
                 borrowers: Sequence[TeacherBorrower]) -> None:
        super().__init__()
        self.task, self.taps, self.teachers = task, taps, teachers
        self.terms: Iterable[DistillationTerm] = \
            nn.ModuleList(terms)  # type: ignore[assignment]
        self.mixtures: Iterable[MixtureTerm] = \
            nn.ModuleList(mixtures)  # type: ignore[assignment]
        self.weighting = weighting
        # Plain attributes, because these modules are children of others.
        self._strategy_terms = weighting.mixture_terms()
        teachers.watch_features = weighting.reads_features or \
            'features' in self.kinds
        teachers.compares_features = 'features' in self.kinds
        self._borrowers = tuple(borrowers)
        self._log_names = log_names(terms)
        self._mixture_names = numbered(m.name for m in self._all_mixtures)
        self.known: Tensor | None
        self.register_buffer('known', _stack_known(specs), persistent=False)
        #: Result of the last training step; replaced in the next one.
        self.last_step: TrainingStep | None = None
        #: Set by the hook before a forward pass, cleared by the hook after it.
        self._running: _ForwardPass | None = None
        self._is_original: Original | None = Original()

    def attach(self, model: nn.Module) -> None:
        """Become a child of the student's model, and register the hooks.

        The hooks are bound methods of this child, so that a copy of the model
        calls the hooks of its own copy of this child.
        """
        setattr(model, NAME, self)
        feature_term = next((i for i, term in enumerate(self.terms)
                             if term.reads == 'features'), 0)
        self._handles = (
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end, with_kwargs=True,
                                        always_call=True),
            *NameHooks(self, feature_term).attach(model))

    def detach(self, model: nn.Module) -> None:
        """Remove the distillation from the model (or from the copy of it that
        this is the child of), which leaves the plain student."""
        for handle in self._handles:
            handle.remove()
        delattr(model, NAME)

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Names of the teachers, in the order of the weights' columns."""
        return self.teachers.names

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the distillation losses in the log."""
        return (*self._log_names, *self._mixture_names)

    @property
    def all_terms(self) -> tuple[DistillationTerm | MixtureTerm, ...]:
        """The terms of the config and of the strategy."""
        return (*self.terms, *self._all_mixtures)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of outputs that the terms compare: ``'logits'``,
        ``'features'`` or both, in this order."""
        reads = {t.reads for t in self.all_terms}
        return tuple(k for k in ('logits', 'features') if k in reads)

    @property
    def reads_classes(self) -> bool:
        """Whether the teachers' class scores have a meaning here."""
        return self.task.judge is not None and (
            self.weighting.needs_classes or
            any(t.reads == 'logits' for t in self.terms))

    # ------------------------------------------------------ a training step

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before the student's forward pass: run the teachers and start
        the student's taps."""
        if not computes_losses(args, kwargs):
            return
        if self._running is not None:
            raise RuntimeError(
                f'{type(model).__name__} calls its own forward pass in '
                "mode='loss' while it computes its losses; such a model "
                'cannot be distilled')
        # Freed first: the teachers' new outputs need the memory.
        self.last_step = None
        batch = _batch(args, kwargs)
        teachers = self.teachers.run(batch)
        self._running = _ForwardPass(batch, teachers,
                                     self.taps.recording(model))
        self._lend(teachers)

    def _end(self, model: nn.Module, args: tuple, kwargs: dict,
             losses: Any) -> Any:
        """Hook after the student's forward pass: stop the taps and add the
        distillation losses. Also called, with ``losses=None``, if the forward
        pass has raised."""
        running = self._running
        if running is None or not computes_losses(args, kwargs):
            return None
        self._running = None
        running.recording.stop()
        self._lend(None)
        if losses is None:
            return None
        if not isinstance(losses, dict):
            raise TypeError(f'{type(model).__name__} returns a '
                            f"{type(losses).__name__} in mode='loss', not a "
                            'dict of losses: it cannot be distilled')
        return with_losses(losses, self._losses(running, losses))

    def _losses(self, running: _ForwardPass,
                own: Mapping[str, Any]) -> dict[str, Tensor]:
        """The distillation losses of a forward pass, scalars, by their names
        in the log; and weights of terms that are not constant.

        Args:
            running: The forward pass.
            own: The model's own losses.
        """
        student = running.recording.output()
        _check_count(student, len(running.batch.images))
        truth = self._truth(running.batch)
        gaps, pairs, teachers = self._gaps(
            student, running.teachers.outputs, truth)
        # Before the strategy, which reads the terms' weights.
        for name, term, gap_BM in zip(self._log_names, self.terms, gaps):
            self._measure(term, name, student, own, gap_BM, truth)
        record = self._record(student, teachers, truth, gaps, pairs)
        weights = restrict(self.weighting(record), record.class_coverage)
        losses = {}
        for name, term, gap_BM in zip(self._log_names, self.terms, gaps):
            weights_BM = weights.logit if term.reads == 'logits' else \
                weights.feature
            if term.strength is not None:
                losses[weight_name(name)] = gap_BM.new_tensor(term.weight)
            losses[name] = term.weight * truth.mean(
                (weights_BM * gap_BM).sum(1))
        for name, mixture in zip(self._mixture_names, self._all_mixtures):
            losses[name] = mixture(student, record.teachers, truth, weights)
        self.last_step = TrainingStep(
            weights.detach(),
            SeenBatch(running.batch, truth, running.teachers)
            if self.weighting.keeps_batch else None,
            (truth.count > 0).sum(),
            LossScale(losses[self._log_names[0]])
            if self.weighting.needs_loss_scale else None)
        return losses

    def _truth(self, batch: Batch) -> Truth:
        truth = self.task.truth(batch)
        return truth if self.known is None else self._judge.with_coverage(
            truth, self.known)

    def _measure(self, term: DistillationTerm, name: str, student: Output,
                 own: Mapping[str, Any], gap_BM: Tensor,
                 truth: Truth) -> None:
        """Let an automatic weight see the batch, see :class:`Strength`."""
        if term.strength is not None and torch.is_grad_enabled() and \
                term.strength.is_measuring:
            term.strength.measure(
                sum_of_losses(own), truth.mean(gap_BM.mean(1)),
                student.predictions if term.reads == 'logits' else
                student.features, name)

    @property
    def _all_mixtures(self) -> tuple[MixtureTerm, ...]:
        return (*self._strategy_terms, *self.mixtures)

    def _gaps(self, student: Output, teachers: tuple[Output, ...],
              truth: Truth
              ) -> tuple[list[Tensor], list[Pairs], tuple[Output, ...]]:
        """Each term's gap, [B, M]; the pairs of each term that reads features;
        and the teachers' outputs in the student's resolution."""
        teachers = tuple(self.task.match(student, t) for t in teachers)
        gaps, pairs = [], []
        for term in self.terms:
            aligned = term.align(student, teachers, truth)
            gaps.append(term.compare(aligned, truth))
            if term.reads == 'features':
                pairs.append(aligned)
        return gaps, pairs, teachers

    def _record(self, student: Output, teachers: tuple[Output, ...],
                truth: Truth, gaps: Sequence[Tensor],
                pairs: Sequence[Pairs]) -> DistillationBatch:
        """The input of the strategy, from the results of :meth:`_gaps`."""
        # [term][M][L] -> [M][all levels]
        all_pairs: Pairs = tuple(
            tuple(pair for levels in of_teacher for pair in levels)
            for of_teacher in zip(*pairs))
        alike = similarity(all_pairs) \
            if all_pairs and self.weighting.needs_similarity else None
        return DistillationBatch(
            student, teachers, truth,
            Gaps(mean_gap(self.terms, 'logits', gaps),
                 mean_gap(self.terms, 'features', gaps), alike),
            all_pairs, self._coverage(truth))

    def _coverage(self, truth: Truth) -> Tensor | None:
        """See :attr:`DistillationBatch.class_coverage`."""
        return None if self.known is None else self._judge.class_coverage(
            truth, self.known)

    @property
    def _judge(self) -> LogitTask:
        """The task; class maps are refused where there are no class
        scores."""
        judge = self.task.judge
        assert judge is not None
        return judge

    # --------------------------------------------- outside a training step

    @torch.no_grad()
    def weigh(self, model: nn.Module, batch: Batch) -> TeacherWeights:
        """The teachers' weights on images, without a training step.

        Call it in evaluation mode: in training mode a strategy explores and
        keeps a record of the batch.

        Args:
            model: The student's model.
            batch: Images [B, 3, H, W] and data samples, from the model's data
                preprocessor.

        Returns:
            Weights for logits and for features, [B, M] each.
        """
        record = self.forward_student(
            model, SeenBatch(batch, self._truth(batch),
                             self.teachers.run(batch)))
        return restrict(self.weighting(record), record.class_coverage)

    # ------------------------------------- the student on an earlier batch

    @torch.no_grad()
    def forward_after_step(self, model: nn.Module,
                           seen: SeenBatch) -> DistillationBatch:
        """Run the updated student on the last training batch, without
        gradient.

        The teachers' outputs were kept and are not computed again. The student
        runs in training mode, but its batch norm statistics do not change.

        Args:
            model: The student's model.
            seen: From :attr:`last_step`.
        """
        with frozen_statistics(model):
            return self.forward_student(model, seen)

    def forward_student(self, model: nn.Module,
                        seen: SeenBatch) -> DistillationBatch:
        """Run the student, with gradient, on a batch for which the teachers'
        outputs are known.

        Args:
            model: The student's model.
            seen: The batch and the teachers' outputs.
        """
        student = self.infer_student(model, seen)
        gaps, pairs, teachers = self._gaps(
            student, seen.teachers.outputs, seen.truth)
        return self._record(student, teachers, seen.truth, gaps, pairs)

    def infer_student(self, model: nn.Module, seen: SeenBatch) -> Output:
        """The student's output, with gradient, for :meth:`forward_student`'s
        arguments."""
        self._lend(seen.teachers)
        try:
            return self.task.infer(model, self.taps, seen.batch)
        finally:
            self._lend(None)

    def inner_features(self, batch: Batch) -> tuple[tuple[Tensor, ...], ...]:
        """Run the teachers on new images and return their inner layers;
        empty if no part of the student reads any."""
        return self.teachers.run(batch).inner if any(
            b.wants_features for b in self._borrowers) else ()

    def _lend(self, teachers: TeacherStep | None) -> None:
        """Give the teachers' inner layers to the parts of the student that
        read them; ``None``: clear the layers given before."""
        inner = teachers.inner if teachers is not None else ()
        for borrower in self._borrowers:
            borrower.lend(inner or None)

    # --------------------------------------------------- as part of a module

    def apply(self, fn: Callable[[nn.Module], None]) -> Distillation:
        """Do nothing: the model applies the student's ``init_cfg`` to all
        modules with this method, and it must neither change the projectors
        nor draw random numbers for them."""
        return self

    def _apply(self, fn: Callable, recurse: bool = True):
        """Also move the teachers and the agent, which are not in the module
        tree."""
        super()._apply(fn, recurse)
        if self._is_original is not None:
            self.teachers.apply_(fn)
            self.weighting.apply_(fn)
        return self

    def __getstate__(self) -> dict:
        """Leave the state of the last batch out of copies."""
        return {**self.__dict__, 'last_step': None, '_running': None}


@dataclass(frozen=True)
class _ForwardPass:
    """A forward pass in ``mode='loss'`` between the hook before it and the
    hook behind it.

    Attributes:
        batch: The student's input.
        teachers: The outputs of the teachers for the batch.
        recording: Recording of the student's taps.
    """
    batch: Batch
    teachers: TeacherStep
    recording: Recording


def distillation_of(model: nn.Module) -> Distillation | None:
    """The ``distillation`` of a model; ``None`` if it has none."""
    child = getattr(model, NAME, None)
    return child if isinstance(child, Distillation) else None


def check_outermost(model: nn.Module) -> None:
    """Raise TypeError where only a part of the model has a distillation: the
    model may never call that part's forward pass (semi-supervised wrappers
    do not)."""
    for path, module in model.named_modules():
        if path and distillation_of(module) is not None:
            raise TypeError(
                f'model is a {type(model).__name__} that contains a '
                f'MultiTeacherDistiller (in {path!r}) and may not call its '
                'forward pass, so the distillation losses would be missing; '
                'the MultiTeacherDistiller must be the model itself')


def _batch(args: tuple, kwargs: dict) -> Batch:
    images = argument('inputs', args, kwargs)
    samples = argument('data_samples', args, kwargs)
    if not isinstance(images, Tensor):
        raise TypeError(
            'the student is given a '
            f'{type(images).__name__} of images, and distillation needs one '
            'tensor [B, 3, H, W]; let its data_preprocessor stack and pad '
            'them')
    samples = () if samples is None else samples
    return Batch(images, samples, ViewKey.of(samples))


def _check_count(student: Output, images: int) -> None:
    """Refuse outputs that are not those of the batch's images.

    Raises:
        ConfigError: A layer gives more or fewer.
    """
    for tensor in student.tensors():
        if len(tensor) != images:
            raise ConfigError(
                'model.taps', f'of {images} images the student gives outputs '
                f'for {len(tensor)}: it runs some layers several times in '
                'training (TridentNet), and cannot be distilled there; tap '
                "another layer with model.taps=dict(feature='...')")


def _stack_known(specs: Sequence[OutputSpec]) -> Tensor | None:
    """Mask of the classes that each teacher was trained on, [M, C]; ``None``:
    all teachers were trained on all classes."""
    if all(s.known is None for s in specs):
        return None
    count = specs[0].num_classes
    return torch.stack([
        torch.ones(count, dtype=torch.bool) if s.known is None else s.known
        for s in specs
    ])
