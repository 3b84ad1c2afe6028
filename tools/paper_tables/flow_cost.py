"""Cost of a step with Knowledge Flow, compared with its necessary parts.

Timed in turns: the student's plain step (the same model with a plain
backbone); the teachers' forward pass; forward and backward pass of all
transforms Q, with features and gradients of the sizes in training, and the
optimiser's step for Q; the student's forward pass in training mode without
gradient (the minimum for theta_old of Eq. 6); and the step with Knowledge Flow
without the KL term, with it, and after the teachers' withdrawal. The floor is
student + teachers + Q with its optimiser; if a distiller lends its teachers,
their forward pass is part of the student's step. The rest of a step above the
floor is spent on p_w, the mixing of features and the hooks.

The hook's check of the weights every ``interval`` iterations is not measured.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from mmkd_rl.engine.hooks import KnowledgeFlowHook
from mmkd_rl.flow import FlowSchedule, flow_of
from mmkd_rl.registry import HOOKS, MODELS
from mmkd_rl.teachers.loading import UNTRAINED
from mmkd_rl.utils.configs import class_name
from paper_tables.text import markdown
from paper_tables.timing import (
    Contestant,
    Step,
    describe,
    in_turns,
    nbytes,
    optimizer_tensors,
    peak,
    ratio,
    setting,
    tensors_of,
)

#: Iterations of the schedule used here: with teachers, and after withdrawal.
WITH_TEACHERS, ALONE = 0, 1


def flow_configs(model: Any) -> Iterator[dict]:
    """Configs of the KnowledgeFlowBackbones in a model, except in teachers.

    Args:
        model: Config of the model.

    Yields:
        The dicts of ``model`` themselves, not copies.
    """
    if isinstance(model, dict):
        if _is(model, 'KnowledgeFlowBackbone'):
            yield model
            return
        for key, value in model.items():
            if key != 'teachers':
                yield from flow_configs(value)
    elif isinstance(model, (list, tuple)):
        for value in model:
            yield from flow_configs(value)


def plain(model: dict) -> dict:
    """Config of the same model without Knowledge Flow."""
    model = copy.deepcopy(model)
    for cfg in flow_configs(model):
        student = cfg['student']
        cfg.clear()
        cfg.update(student)
    return model


def untrained(model: dict) -> None:
    """Replace the checkpoints of all teachers by random weights, in place."""
    for part in (model, *flow_configs(model)):
        teachers = part.get('teachers', ())
        for teacher in () if isinstance(teachers, str) else teachers:
            teacher['checkpoint'] = UNTRAINED


class FlowContestant(Contestant):
    """A model with Knowledge Flow that makes training steps.

    Args:
        model, cfg, data: See :class:`Contestant`.
        kl: Whether to compute the KL term, if the config has one.
    """

    def __init__(self, model: Any, cfg: Config, data: dict, kl: bool) -> None:
        super().__init__(model, cfg, data)
        self.flow = flow_of(model)
        self.iteration = WITH_TEACHERS
        hook = copy.deepcopy(_hook_config(cfg))
        if not kl:
            hook['kl_weight'] = 0.
        built: KnowledgeFlowHook = HOOKS.build(hook)
        self.joint = built.attach(
            model, FlowSchedule(ALONE, ALONE, built.dependency_weight))

    @property
    def has_kl(self) -> bool:
        """Whether the losses include the KL term."""
        return self.joint.old is not None

    def step(self) -> None:
        """Run an iteration as the runner and the hook do."""
        self.joint.begin(self.iteration)
        super().step()
        self.flow.forget()

    def resident(self) -> Iterator[Tensor]:
        """Tensors that live from one step to the next, including those of the
        teachers and of theta_old."""
        parts = [super().resident(),
                 *(tensors_of(t.model) for t in self.flow.pool)]
        if self.joint.old is not None:
            parts.append(self.joint.old.tensors())
        # Teachers that a distiller lends are in two parts, and count once.
        yield from {id(t): t for t in chain(*parts)}.values()


def measure(cfg: Config, data: dict, device: str, warmup: int,
            iters: int) -> dict[str, Any]:
    """Time the steps that are listed in this module's docstring.

    Args:
        cfg: Config of the training; its model has one KnowledgeFlowBackbone.
        data: A batch in the data loader's format.
        device: Device of the models.
        warmup: Number of turns before the timed ones.
        iters: Number of timed turns.

    Returns:
        Seconds, peak memory in MiB and the ratios; ``kl_over_forward`` is
        ``None`` if there is no KL term.

    Raises:
        ValueError: The config has no KnowledgeFlowHook.
    """
    _hook_config(cfg)
    student = Contestant(
        MODELS.build(plain(cfg.model)).to(device), cfg, data)
    # Copies of the model share the teachers.
    model = MODELS.build(copy.deepcopy(cfg.model)).to(device)
    flow = FlowContestant(copy.deepcopy(model), cfg, data, kl=False)
    kl = FlowContestant(copy.deepcopy(model), cfg, data, kl=True)
    alone = FlowContestant(model, cfg, data, kl=False)
    alone.step()  # with teachers, so that the optimiser has state for Q
    alone.iteration = ALONE
    images = student.model.data_preprocessor(data, True)['inputs']
    pool, everybody = flow.flow.pool, [True] * len(flow.flow.teacher_names)

    def teachers() -> None:
        with flow.optimizer.optim_context(flow.model):
            pool.inner(images, everybody)

    @torch.no_grad()
    def forward() -> None:
        with student.optimizer.optim_context(student.model):
            student.model(images, mode='tensor')

    q = _OnlyQ(flow, cfg)
    steps: dict[str, Step] = dict(
        student=student.step,
        teachers=teachers,
        q=q.step,
        q_update=q.update,
        flow=flow.step,
        alone=alone.step)
    if kl.has_kl:
        steps |= dict(forward=forward, kl=kl.step)
    times = in_turns(steps, warmup, iters)
    lent = flow.flow.borrowed
    parts = ['student', 'q', 'q_update'] + ['teachers'] * (not lent)
    floor = [sum(turn) for turn in zip(*(times[p] for p in parts))]
    strict = [a - b for a, b in zip(floor, times['q_update'])]
    peaks = dict(
        student=student.memory(),
        teachers=peak(teachers) + sum(
            nbytes(tensors_of(t.model)) for t in pool),
        q=peak(q.step) + nbytes(q.resident()),
        flow=flow.memory(),
        alone=alone.memory())
    if kl.has_kl:
        peaks |= dict(forward=peak(forward), kl=kl.memory())
    held = peaks['student'] + (0 if lent else peaks['teachers'])
    return dict(
        seconds={n: statistics.median(t) for n, t in times.items()},
        floor_s=statistics.median(floor),
        peak_mb={n: b / 2**20 for n, b in peaks.items()},
        flow_over_floor=ratio(times['flow'], floor),
        flow_over_floor_without_update=ratio(times['flow'], strict),
        kl_over_forward=ratio(
            [a - b for a, b in zip(times['kl'], times['flow'])],
            times['forward']) if kl.has_kl else None,
        alone_over_student=ratio(times['alone'], times['student']),
        memory_flow_over_floor=peaks['flow'] / (held + peaks['q']),
        memory_flow_over_floor_without_q=peaks['flow'] / held,
        memory_alone_over_student=peaks['alone'] / peaks['student'],
        teachers_are_lent=lent,
        **setting(images, iters))


def report(result: Mapping[str, Any]) -> str:
    """Format the result of :func:`measure`."""
    names = dict(
        student='student, plain step',
        teachers='teachers, forward',
        q='Q, forward and backward',
        q_update='Q, optimiser',
        flow='Knowledge Flow, no KL',
        kl='Knowledge Flow, KL',
        forward='student, forward',
        alone='student alone again')
    rows = [
        [text, f"{1000 * result['seconds'][name]:.2f}",
         f"{result['peak_mb'][name]:.1f}" if name in result['peak_mb'] else
         ''] for name, text in names.items() if name in result['seconds']
    ]
    lines = [describe(result), '', markdown(['', 'ms', 'MiB'], rows)]
    parts = 'student + Q' if result['teachers_are_lent'] else \
        'student + teachers + Q'
    lines += [
        '', f"Knowledge Flow / ({parts})  {result['flow_over_floor']:.3f}"
        "   without Q's optimiser in the sum  "
        f"{result['flow_over_floor_without_update']:.3f}",
        f"  memory  {result['memory_flow_over_floor']:.3f}   without Q in "
        f"the sum  {result['memory_flow_over_floor_without_q']:.3f}"
    ]
    if result['kl_over_forward'] is None:
        lines.append('there is no KL term')
    else:
        lines.append('KL term / student, forward  '
                     f"{result['kl_over_forward']:.3f}")
    lines.append(f"alone again / student  {result['alone_over_student']:.3f}"
                 f"   memory {result['memory_alone_over_student']:.3f}")
    return '\n'.join(lines)


class _OnlyQ:
    """All transforms Q of a contestant, trained without the rest of the model
    on recorded features and random gradients."""

    def __init__(self, contestant: FlowContestant, cfg: Config) -> None:
        seen: list[tuple] = []
        fusions = contestant.flow.fusions
        handles = [
            f.register_forward_hook(lambda f, args, _: seen.append((f, *args)))
            for f in fusions
        ]
        contestant.step()
        for handle in handles:
            handle.remove()
        self._contestant = contestant
        copies = {f: copy.deepcopy(f.transforms) for f in fusions}
        self._jobs = [(q, feature, own.detach(), image)
                      for fusion, own, features, _, image in seen
                      for q, feature in zip(copies[fusion], features)]
        self._transforms = nn.ModuleList(q for q, *_ in self._jobs)
        self._optimizer = build_optim_wrapper(
            self._transforms, cfg.optim_wrapper).optimizer
        self._gradients = [torch.randn_like(out) for out in self._forward()]
        self.step()
        self.update()

    def _forward(self) -> list[Tensor]:
        with self._contestant.optimizer.optim_context(self._contestant.model):
            return [q(feature, own, None, image)
                    for q, feature, own, image in self._jobs]

    def step(self) -> None:
        """Forward and backward pass of all Q."""
        for p in self._transforms.parameters():
            p.grad = None
        torch.autograd.backward(self._forward(), self._gradients)

    def update(self) -> None:
        """Step of the optimiser for all Q."""
        self._optimizer.step()

    def resident(self) -> Iterator[Tensor]:
        """Weights, gradients and optimiser state of all Q."""
        yield from tensors_of(self._transforms)
        yield from (p.grad for p in self._transforms.parameters()
                    if p.grad is not None)
        yield from optimizer_tensors(self._optimizer)


def _hook_config(cfg: Config) -> dict:
    for hook in cfg.get('custom_hooks') or ():
        if _is(hook, 'KnowledgeFlowHook'):
            return hook
    raise ValueError(
        'custom_hooks has no KnowledgeFlowHook, whose losses are part of the '
        "step; add dict(type='mmkd_rl.KnowledgeFlowHook')")


def _is(cfg: Mapping, name: str) -> bool:
    return class_name(cfg.get('type')) == name
