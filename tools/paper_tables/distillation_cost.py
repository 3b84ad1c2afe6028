"""Cost of a step of a distillation, compared with its necessary parts.

In turns: the student's plain step, the teachers' forward pass, the step with
equal weights (AVER) and the steps with other strategies. A strategy's step
includes its share of the updates of its own networks. Strategies are asked
through their :class:`mmkd_rl.weighting.Learner`, of whatever kind it is.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine.hooks import LearnerHook
from mmkd_rl.export.student import plain_copy
from mmkd_rl.recipes.reading import MODEL_KEYS, read_strategy
from mmkd_rl.records import Batch, SeenBatch
from mmkd_rl.registry import HOOKS, MODELS
from mmkd_rl.utils.configs import class_name
from mmkd_rl.weighting import Student
from paper_tables.tables import COSTS
from paper_tables.text import markdown
from paper_tables.timing import (
    Contestant,
    Step,
    describe,
    in_turns,
    nbytes,
    peak,
    ratio,
    seconds,
    setting,
    tensors_of,
)


class DistilledContestant(Contestant):
    """A contestant whose strategy, if it has one, may have a learner.

    Args:
        model, cfg, data: See :class:`Contestant`.
        epoch: The student's iterations in one.
    """

    def __init__(self, model: Any, cfg: Config, data: dict,
                 epoch: int = 1) -> None:
        super().__init__(model, cfg, data)
        self.distillation = distillation_of(model)
        self.learner = self.distillation and \
            self.distillation.weighting.learner
        if self.learner:
            # Its hook's work is done here: nothing to warn of.
            self.learner.has_hook = True
            assert self.distillation is not None
            self.interval = update_interval(self.distillation.weighting, cfg,
                                            epoch)

    def step(self) -> None:
        """Run one iteration as the runner and the hooks do."""
        super().step()
        if self.learner:
            assert self.distillation is not None
            assert self.distillation.last_step is not None
            self.learner.observe(self.distillation.last_step, self._student())

    def update(self) -> None:
        """Run an update as the learner's hook does."""
        assert self.learner is not None
        self.learner.update(self._student())

    def _student(self) -> Student:
        assert self.distillation is not None
        return Student(self.model, self.distillation, self.optimizer)

    def resident(self) -> Iterable[Tensor]:
        """Tensors that live from one step to the next, but the learner's."""
        yield from super().resident()
        last = self.distillation and self.distillation.last_step
        if last and last.seen:
            yield from _seen_tensors(last.seen)

    def learner_memory(self) -> int:
        """Bytes of the learner before an update, when it has most."""
        if not self.learner:
            return 0
        self.step()
        return self.learner.nbytes_after(self.interval)

    def memory(self) -> int:
        """Bytes at the highest point of an iteration."""
        highest = peak(self.step)
        if self.learner:
            highest = max(highest, peak(self.update))
        return highest + nbytes(self.resident()) + self.learner_memory()


def update_interval(weighting: Any, cfg: Config, epoch: int) -> int:
    """The student's iterations between two of a learner's updates, at most.

    Args:
        weighting: The strategy that has it.
        cfg: Whose hook trains it; else that which the strategy names.
        epoch: The student's iterations in one.
    """
    for hook in (*(cfg.get('custom_hooks') or ()), *weighting.hooks):
        kind = HOOKS.get(class_name(hook['type']))
        if kind and issubclass(kind, LearnerHook) and isinstance(
                weighting.learner, kind.learner):
            built: LearnerHook = HOOKS.build(dict(hook))
            return max(built.warmup, built.interval) * (
                epoch if built.by_epoch else 1)
    return epoch


def in_turns_with_updates(
    contestants: Mapping[str, DistilledContestant], others: dict[str, Step],
    warmup: int, iters: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Time contestants, with their share of their learners' updates.

    Args:
        contestants: By name.
        others: Steps to time beside theirs.
        warmup: Turns that do not count.
        iters: Turns that do.

    Returns:
        Seconds of each turn by name, and the updates' share of a step.
    """
    steps = {**others, **{n: c.step for n, c in contestants.items()}}
    shares: dict[str, list[float]] = {}
    for name, contestant in contestants.items():
        if contestant.learner is None:
            shares[name] = [0.] * iters
        elif contestant.learner.learns_from_all:
            shares[name] = [_share(contestant, max(2, warmup))] * iters
        else:
            contestant.step()  # so that there is something to learn from
            steps[f'{name}, update'] = contestant.update
    times = in_turns(steps, warmup, iters)
    for name, contestant in contestants.items():
        if name not in shares:
            shares[name] = [t / contestant.interval
                            for t in times.pop(f'{name}, update')]
        times[name] = [sum(t) for t in zip(times[name], shares[name])]
    return times, {n: statistics.median(s) for n, s in shares.items()}


def _share(contestant: DistilledContestant, steps: int) -> float:
    """Seconds of an update after some steps, for each of them."""
    took = []
    for _ in range(3):
        for _ in range(steps):
            contestant.step()
        took.append(seconds(contestant.update) / steps)
    return statistics.median(took)


def measure(cfg: Config, models: Mapping[str, Mapping], data: dict, epoch: int,
            device: str, warmup: int, iters: int) -> dict[str, Any]:
    """Time models in turns with AVER and the student alone.

    Args:
        cfg: Of a distillation.
        models: By name, what else to time: configs of its model.
        data: A batch as the data loader gives it.
        epoch: The student's iterations in one.
        device: Where to.
        warmup: Turns that do not count.
        iters: Turns that do.

    Returns:
        ``steps``, a row a step, and what they must be read beside.
    """
    equal = copy.deepcopy(cfg.model)
    equal.weighting = dict(type='mmkd_rl.AverageWeighting')
    built = {name: MODELS.build(copy.deepcopy(model)).to(device)
             for name, model in dict(aver=equal, **models).items()}
    built = dict(baseline=plain_copy(built['aver']), **built)
    contestants = {name: DistilledContestant(model, cfg, data, epoch)
                   for name, model in built.items()}
    aver = contestants['aver']
    pool = aver.model.distillation.teachers
    given = aver.model.data_preprocessor(data, True)
    batch = Batch(given['inputs'], given['data_samples'])

    def teachers() -> None:
        with aver.optimizer.optim_context(aver.model):
            pool(batch)

    times, shares = in_turns_with_updates(
        contestants, dict(teachers=teachers), warmup, iters)
    times['floor'] = [sum(t) for t in zip(times['baseline'],
                                          times['teachers'])]
    peaks = {n: c.memory() for n, c in contestants.items()}
    peaks['teachers'] = peak(teachers) + sum(
        nbytes(tensors_of(t)) for t in pool)
    rows = {}
    for name in ('baseline', 'teachers', 'floor', 'aver', *models):
        # Ratios are turn by turn, so that a slow moment hits both sides.
        rows[name] = dict(
            step_s=statistics.median(times[name]),
            over_floor=ratio(times[name], times['floor']),
            over_aver=ratio(times[name], times['aver']))
        if name in peaks:
            rows[name].update(
                peak_mb=peaks[name] / 2**20,
                memory_over_aver=peaks[name] / peaks['aver'])
        if name in contestants and contestants[name].learner:
            rows[name].update(
                update_s=shares[name], interval=contestants[name].interval,
                learner_mb=contestants[name].learner_memory() / 2**20)
    return dict(steps=rows, **setting(batch.images, iters))


def with_strategy(model: Mapping, name: str) -> Mapping:
    """A distiller's config with another strategy: what it does otherwise than
    AVER, or the config's own options where the strategy is the config's."""
    made, settings = copy.deepcopy(dict(model)), read_strategy(name)
    plain = read_strategy('aver')
    own = made.get('weighting', {})
    for key in MODEL_KEYS:
        if settings.get(key) != plain.get(key):
            made[key] = settings.get(key)
    if set(settings['weighting']) == {'type'} and class_name(
            own.get('type')) == class_name(settings['weighting']['type']):
        made['weighting'] = own
    return made


def report(result: Mapping[str, Any]) -> str:
    """:func:`measure`'s figures as text, beside Table 6(c) of the paper."""
    rows = []
    for name, row in result['steps'].items():
        paper = COSTS.get(name.replace('_', '-'), ())
        against = zip(paper, COSTS['aver'])
        rows.append([
            name, f"{1000 * row['step_s']:.1f}", f"{row['over_floor']:.3f}",
            f"{row['over_aver']:.3f}", _text(row, 'peak_mb', 1),
            _text(row, 'memory_over_aver', 3),
            *(f'{ours} ({ours / aver:.2f})' for ours, aver in against),
            *[''] * (2 - len(paper)), _text(row, 'update_s', 2, 1000),
            _text(row, 'learner_mb', 1), _text(row, 'interval', 0)])
    head = ['step', 'ms', '/ floor', '/ AVER', 'peak MiB', '/ AVER',
            'paper: s an epoch (/ AVER)', 'paper: GB (/ AVER)',
            'own updates, ms', 'own MiB', 'steps an update']
    return (f'{describe(result)}; floor: baseline + teachers\n\n'
            f'{markdown(head, rows)}')


def _text(row: Mapping[str, float], key: str, digits: int,
          factor: float = 1.) -> str:
    return f'{factor * row[key]:.{digits}f}' if key in row else ''


def _seen_tensors(seen: SeenBatch) -> Iterable[Tensor]:
    """Tensors that are kept of a batch until the student's update is done."""
    yield seen.batch.images
    for output in seen.teachers.outputs:
        yield from output.tensors()
    for inner in seen.teachers.inner:
        yield from inner
