"""Builds the student's model and adds the distillation to it.

``MultiTeacherDistiller`` returns the student's model itself, with one more
child, ``distillation``, and hooks. So all references to the model in configs,
optimisers, checkpoints and hooks of other packages stay valid: names of
weights, layer-wise learning rates, ``custom_keys``, ``model.bbox_head``,
class-count checks, inferencers. A wrapper class would put ``student.`` into
every name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from pydantic import Field
from torch import nn

from mmkd_rl.context import WeightingContext
from mmkd_rl.distillers.distillation import (
    NAME,
    Distillation,
    distillation_of,
)
from mmkd_rl.errors import is_fault
from mmkd_rl.losses import DistillationTerm, LogitTerm, MixtureTerm
from mmkd_rl.losses.projector import Projector
from mmkd_rl.losses.strength import Strength, split_strength
from mmkd_rl.options import ConfigError, Count, under, unknown_options
from mmkd_rl.records import Batch, OutputSpec
from mmkd_rl.registry import (
    MODELS,
    TASKS,
    WEIGHTINGS,
    build,
    check_parts,
)
from mmkd_rl.taps import OutputTaps, find_elements
from mmkd_rl.tasks import Task
from mmkd_rl.teachers import Normalization, TeacherBorrower, TeacherPool
from mmkd_rl.teachers.loading import build_network, load_model_config
from mmkd_rl.teachers.teacher import spec_of
from mmkd_rl.utils import random_state
from mmkd_rl.utils.configs import class_name
from mmkd_rl.utils.patches import patch_mmengine
from mmkd_rl.weighting import WeightingStrategy

#: Defaults of the short forms, compared by identity.
_KD: dict = dict(type='KDLoss')
_FITNET: dict = dict(type='FitNetLoss')
#: Models that cannot be students: name of their class or a base, and why.
_NO_STUDENTS = {
    'SemiBaseDetector':
    'it calls loss() of the detector inside it directly, without a forward '
    'pass, so no distillation losses could be added; distil the inner '
    'detector alone',
    'KnowledgeDistillationSingleStageDetector':
    "it is one of MMDetection's own distillers, with a teacher of its own; "
    'give the plain detector as student and its teacher in teachers',
}


@MODELS.register_module()
@under('model')
def MultiTeacherDistiller(  # noqa: N802, in a config it stands for a class
        student: dict | str | None = None,
        teachers: Sequence[dict] = (),
        logit_loss: dict | None = _KD,
        feature_loss: dict | None = _FITNET,
        losses: Sequence[dict] | None = None,
        weighting: dict = dict(type='AverageWeighting'),
        projector: dict | None = None,
        taps: dict | None = None,
        task: dict = dict(type='ClassificationTask'),
        probe_size: Count | Annotated[Sequence[Count], Field(
            min_length=2, max_length=3)] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        **unknown: Any) -> BaseModel:
    """A student's model that learns from several teachers.

    Args:
        student: Config of the student's model: a dict, a path, or a name in
            an installed package, see :func:`load_model_config`.
        teachers: See :class:`TeacherPool`.
        logit_loss: Config of the term that reads logits; ``None``: none.
        feature_loss: Config of the term that reads features; ``None``: none.
        losses: Configs of all terms, any number of any kind, in place of the
            two above.
        weighting: Config of the strategy that weighs the teachers.
        projector: Arguments of :class:`Projector`.
        taps: Taps of the student, see :meth:`Task.taps`.
        task: Config of the task adapter.
        probe_size: Side, (H, W) or (C, H, W) of the grey images with which
            output sizes are found when the model is built. Most networks
            accept any size; set it for those that accept only one. ``None``:
            64; for detectors 256, or 512 or 1024 where a network fails on
            smaller images. C is that of the student's data preprocessor, or 3.
        data_preprocessor: Config of the data preprocessor of a student that
            has none of its own. MMEngine's runner sets it to the config's
            where it is left out, so that a student's own, which a training
            without teachers would use, comes first.
        init_cfg: Initialisation of the student, in place of the one in
            ``student``.
        **unknown: Options that do not exist; refused with a message.

    Returns:
        The student's model. Its ``distillation`` is a :class:`Distillation`.

    Raises:
        ValueError, TypeError, FileNotFoundError: The config is wrong; the
            message names the key and the value.
    """
    if student is None:
        raise ConfigError('student', "must be the config of the student's "
                          'model, a dict or a path')
    _refuse_unknown(student, unknown)
    terms = _term_configs(logit_loss, feature_loss, losses)
    check_parts([
        (MODELS, dict(type=MultiTeacherDistiller, projector=projector,
                      taps=taps, probe_size=probe_size, **unknown), '', ()),
        (TASKS, task, 'task', ()),
        (WEIGHTINGS, weighting, 'weighting', ('context', )),
        *((MODELS, part, key, ()) for key, cfg in terms
          for part in _parts_of_term(key, cfg))
    ])
    patch_mmengine()
    adapter: Task = build(TASKS, task, 'task')
    if logit_loss is _KD and adapter.judge is None:
        terms = [t for t in terms if t[1] is not _KD]
    model = _build_student(student, data_preprocessor, init_cfg, adapter)
    # The student's random numbers stay those of a training without teachers.
    # With its generator state the projectors would repeat numbers that the
    # student draws next, so they get another seed.
    with random_state.unchanged_on_cpu():
        torch.default_generator.manual_seed(int(torch.randint(2**31, ())))
        _build_distillation(
            model, adapter, teachers, terms, weighting, projector, taps,
            probe_size).attach(model)
    return model


# A function can have this attribute, like the classes derived from Checked.
MultiTeacherDistiller.nested = dict(  # type: ignore[attr-defined]
    projector=(MODELS, Projector, ('student', 'teacher')))


def _refuse_unknown(student: dict | str, unknown: dict) -> None:
    """Raise ConfigError for options of the student and unknown options."""
    for name in unknown:
        if isinstance(student, dict) and name in student:
            raise ConfigError(
                name, f"this is the student's; write model.student.{name}")
    if unknown and '_delete_' not in unknown:
        # Python's own message would not list the valid options.
        *takes, _ = inspect.signature(MultiTeacherDistiller).parameters
        raise ConfigError(
            unknown_options(unknown, 'MultiTeacherDistiller', takes))


def _build_distillation(model: BaseModel, task: Task,
                        teachers: Sequence[dict],
                        terms: Sequence[tuple[str, dict]], weighting: dict,
                        projector: dict | None, taps: dict | None,
                        probe_size: int | Sequence[int] | None
                        ) -> Distillation:
    student_taps = task.taps(model, taps, 'model')
    pool = TeacherPool(teachers, task)
    task.prepare(model, {t.name: t.model for t in pool})
    pool.adapt(Normalization.of(model.data_preprocessor))
    student, specs = _probe_sizes(
        model, task, student_taps, pool,
        [probe_size] if probe_size else task.probe_sizes)
    borrowers = [m for m in model.modules()
                 if isinstance(m, TeacherBorrower) and m.waits_for_teachers]
    for borrower in borrowers:
        borrower.borrow(pool)
    specs = pool.pair_levels(student, specs)
    specs = pool.match_classes(specs, student.num_classes)
    if not terms:
        raise ConfigError('logit_loss and feature_loss are both None: there '
                          'is nothing to distil')
    projector = {**task.projector, **(projector or {})}
    per_teacher: list[DistillationTerm] = []
    mixtures: list[MixtureTerm] = []
    for key, cfg in terms:
        with under(key):
            own, strength = split_strength(cfg)
            term = build(MODELS, own, '')
            if strength is not None:
                term.strength = Strength(**strength)
            if isinstance(term, DistillationTerm):
                _check_labels(term, task)
                term.predict = pool.predict
                term.build(student, specs, projector)
        if isinstance(term, MixtureTerm):
            if strength is not None and strength.get('auto'):
                raise ConfigError(
                    f'{key}.loss_weight', f"{type(term).__name__} is no sum "
                    "over teachers, so its weight cannot be 'auto'; give a "
                    'number')
            mixtures.append(term)
        elif isinstance(term, DistillationTerm):
            per_teacher.append(term)
        else:
            raise ConfigError(
                f'{key}.type', f'{cfg["type"]!r} is no distillation term; '
                'take one of KDLoss, DISTLoss, DKDLoss, CWDLogitLoss, '
                'FitNetLoss, NDLoss, CWDLoss, PKDLoss, MGDLoss, ...')
    strategy = _build_strategy(
        weighting,
        WeightingContext(student, specs, task, tuple(per_teacher),
                         pool.classify, bool(mixtures)))
    return Distillation(task, student_taps, pool, specs, per_teacher, mixtures,
                        strategy, borrowers)


def _check_labels(term: DistillationTerm, task: Task) -> None:
    """Raise ConfigError where a term reads boxes, and there are none; or it
    takes scores through a softmax, and these networks have them for sigmoids,
    or the reverse."""
    if term.reads_objects and not task.may_have_boxes:
        raise ConfigError(
            f'{type(term).__name__} reads the boxes of objects, and '
            f'{type(task).__name__} has other labels; use PKDLoss, MGDLoss or '
            'FitNetLoss')
    if not isinstance(term, LogitTerm) or term.softmax in (
            None, task.softmax) or task.judge is None:
        return
    kinds = ('sigmoid each', 'softmax over classes')
    raise ConfigError(
        f'{type(term).__name__} takes class scores through a '
        f'{kinds[term.softmax]}, and those of {type(task).__name__} are for a '
        f'{kinds[task.softmax]}; use '
        + ('KDLoss' if task.softmax else 'BinaryKDLoss') + ' or CWDLogitLoss')


def _parts_of_term(key: str, cfg: Any) -> list[Any]:
    """Configs of a term and of its strength, to be checked."""
    with under(key):
        own, strength = split_strength(cfg)
    return [own] if strength is None else [
        own, dict(type=Strength, **strength)]


def _term_configs(logit_loss: dict | None, feature_loss: dict | None,
                  losses: Sequence[dict] | None) -> list[tuple[str, dict]]:
    """Keys and configs of all terms."""
    if losses is None:
        return [(key, cfg)
                for key, cfg in (('logit_loss', logit_loss),
                                 ('feature_loss', feature_loss))
                if cfg is not None]
    if logit_loss is not _KD or feature_loss is not _FITNET:
        raise ConfigError('losses', 'this replaces logit_loss and '
                          'feature_loss; remove these two from the config, '
                          'or losses')
    if not isinstance(losses, (list, tuple)) or not losses:
        raise ConfigError('losses', 'must be a list of at least one '
                          f"dict(type='KDLoss', ...), got {losses!r}")
    return [(f'losses[{i}]', cfg) for i, cfg in enumerate(losses)]


def _build_strategy(cfg: dict, context: WeightingContext) -> WeightingStrategy:
    strategy: WeightingStrategy = build(
        WEIGHTINGS, cfg, 'weighting', context=context)
    name, student = type(strategy).__name__, context.student

    def others(attribute: str, value: bool = False) -> list[str]:
        return sorted(n for n, kind in WEIGHTINGS.module_dict.items()
                      if getattr(kind, attribute, True) is value)

    if strategy.needs_labels and context.task.judge is None:
        raise ConfigError(
            'weighting', f'{name} needs labels and class scores, which '
            f'{type(context.task).__name__} does not give; use a weighting '
            f'of a type in {others("needs_labels")}')
    if context.task.may_have_boxes and not strategy.takes_objects:
        raise ConfigError(
            'weighting', f'{name} keeps images of earlier batches, and those '
            'of a detector have other sizes and numbers of objects; use a '
            f'weighting of a type in {others("takes_objects", True)}')
    for teacher in context.teachers:
        if strategy.needs_classes and \
                teacher.num_classes != student.num_classes:
            raise ConfigError(
                'weighting', f'{name} compares class scores, but teacher '
                f'{teacher.name!r} has {teacher.num_classes} classes and the '
                f'student {student.num_classes}; give the teacher '
                'class_map=[...], or use a weighting of a type in '
                f'{others("needs_classes")}')
    return strategy


def _probe_sizes(model: BaseModel, task: Task, taps: OutputTaps,
                 pool: TeacherPool, sizes: Sequence[int | Sequence[int]]
                 ) -> tuple[OutputSpec, tuple[OutputSpec, ...]]:
    """:func:`_probe` with the first size on which no network fails.

    Raises:
        ValueError: The student or a teacher fails on images of all sizes.
    """
    failed = None
    for size in sizes:
        shape = (size, size) if isinstance(size, int) else tuple(size)
        for channels in _channels(model) if len(shape) == 2 else shape[:1]:
            try:
                return _probe(model, task, taps, pool,
                              (channels, *shape[-2:]))
            except ValueError as error:
                failed = failed or error
    assert failed is not None
    raise failed


def _channels(model: BaseModel) -> list[int]:
    """Numbers of channels that the student's images may have."""
    mean = getattr(model.data_preprocessor, 'mean', None)
    found = mean.numel() if isinstance(mean, torch.Tensor) else 3
    # The mean of one channel may be that of all.
    return [found] if found > 1 else [found, 3]


@torch.no_grad()
def _probe(model: BaseModel, task: Task, taps: OutputTaps, pool: TeacherPool,
           shape: Sequence[int]
           ) -> tuple[OutputSpec, tuple[OutputSpec, ...]]:
    """Run the student and each teacher once on two grey images, to find the
    sizes of their outputs.

    Raises:
        ValueError: The student or a teacher fails on images of this size.
    """
    batch = Batch(torch.zeros(2, *shape))
    model.eval()
    try:
        output = task.infer(model, taps, batch)
        find_elements(model, taps.all(),
                      lambda: task.run(model, batch))
    except (RuntimeError, AssertionError, TypeError,
            AttributeError) as error:
        if isinstance(error, (TypeError, AttributeError)) and is_fault(error):
            raise
        raise ValueError(
            f'student fails on images of shape {tuple(batch.images.shape)}: '
            f'{error}; if it needs another size, set model.probe_size to a '
            'side, (H, W) or (C, H, W); if it needs data samples to run, take '
            "task=dict(type='FeatureTask')"
        ) from error
    finally:
        model.train()
    specs = spec_of('student', output), pool.probe(batch)
    for spec in (specs[0], *specs[1]):
        task.check(spec, batch.images)
    return specs


def _build_student(cfg: dict | str, preprocessor: dict | None,
                   init_cfg: dict | None, task: Task) -> BaseModel:
    if isinstance(cfg, dict) and \
            class_name(cfg.get('type')) == 'MultiTeacherDistiller':
        raise ConfigError('student', 'it is distilled already (its type is '
                          'MultiTeacherDistiller); give its student, and all '
                          'teachers in one list')
    config, scope = load_model_config(cfg, 'model.student', keep_flow=True)
    own = config.get('data_preprocessor')
    if own is None and preprocessor is not None:
        config['data_preprocessor'] = preprocessor
    elif preprocessor not in (None, own):
        print_log('model.student has a data_preprocessor of its own, so '
                  "model.data_preprocessor, or the config's, is not used",
                  'current')
    if init_cfg is not None:
        config['init_cfg'] = init_cfg
    if scope is None:
        current = DefaultScope.get_current_instance()
        scope = current and current.scope_name
    scope = task.scope_for(scope)
    with MODELS.switch_scope_and_registry(scope) as registry:
        kind = config['type']
        kind = registry.get(kind) if isinstance(kind, str) else kind
    _refuse_kind(kind)
    model = build_network(config, scope, 'model.student')
    _refuse(model)
    return model  # type: ignore[return-value]


def _refuse_kind(kind: Any) -> None:
    """Raise ConfigError where models of a class cannot be students. Called
    before the model is built: some build teachers of their own."""
    for base in getattr(kind, '__mro__', ()):
        if base.__name__ in _NO_STUDENTS:
            raise ConfigError(
                'student', f'{kind.__name__} cannot be distilled: '
                f'{_NO_STUDENTS[base.__name__]}')


def _refuse(model: nn.Module) -> None:
    """Raise ConfigError where a model cannot be a student."""
    name = type(model).__name__
    if not isinstance(model, BaseModel):
        raise ConfigError('student', f'{name} is not a whole model (a '
                          'classifier, detector or segmentor) but a part of '
                          'one; give the config of the whole model')
    for path, module in model.named_modules():
        if distillation_of(module) is not None:
            raise ConfigError(
                'student', f'it has a distillation already, in {path!r}; a '
                'model is distilled once, with all teachers in one list')
    if hasattr(model, NAME):
        raise ConfigError('student', f'{name} has an attribute {NAME!r} of '
                          'its own')
