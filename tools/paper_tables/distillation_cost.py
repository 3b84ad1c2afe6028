"""Cost of a distillation step, compared with its necessary parts.

Timed in turns: the student's step without teachers, the teachers' forward
pass, the step with equal weights (AVER) and the steps with other strategies. A
strategy's step includes its share of the updates of the strategy's own
networks, which are made through :class:`mmkd_rl.weighting.Learner`. MTKD-RL
computes rewards for the batches that its history keeps, on a large data set a
small share of all; the others' steps are timed, too, and the mean is reported.
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
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner
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
    """A distiller, or a plain student, that makes training steps. The
    strategy of a distiller may have a learner.

    Args:
        model, cfg, data: See :class:`Contestant`.
        epoch: Number of the student's iterations in an epoch.
    """

    def __init__(self, model: Any, cfg: Config, data: dict,
                 epoch: int = 1) -> None:
        super().__init__(model, cfg, data)
        self.distillation = distillation_of(model)
        self.learner = self.distillation and \
            self.distillation.weighting.learner
        if self.learner:
            # update() does the work of the learner's hook; this turns off the
            # warning that the hook is missing.
            self.learner.has_hook = True
            assert self.distillation is not None
            self.interval = update_interval(self.distillation.weighting, cfg,
                                            epoch)

    def step(self) -> None:
        """Run an iteration as the runner and the hooks do."""
        super().step()
        if self.learner:
            assert self.distillation is not None
            assert self.distillation.last_step is not None
            self.learner.observe(self.distillation.last_step, self._student())

    def kept_share(self) -> float:
        """Share of an interval's batches that the learner's history keeps."""
        if not isinstance(self.learner, AgentLearner):
            return 1.
        self.step()
        history = self.learner.history
        room = history.max_bytes // history.nbytes_after(1)
        stride = 1
        while -(-self.interval // stride) > max(1, room):
            stride *= 2
        return -(-self.interval // stride) / self.interval

    def step_not_kept(self) -> None:
        """Run an iteration whose batch the history does not keep."""
        assert isinstance(self.learner, AgentLearner)
        self.learner.history.load_state_dict(dict(seen=1, stride=2))
        self.step()

    def update(self) -> None:
        """Run an update as the learner's hook does."""
        assert self.learner is not None
        self.learner.update(self._student())

    def _student(self) -> Student:
        assert self.distillation is not None
        return Student(self.model, self.distillation, self.optimizer)

    def resident(self) -> Iterable[Tensor]:
        """Tensors that live from one step to the next, without those of the
        learner."""
        yield from super().resident()
        last = self.distillation and self.distillation.last_step
        if last and last.seen:
            yield from _seen_tensors(last.seen)

    def learner_memory(self) -> int:
        """Bytes of the learner just before an update, when it holds most
        samples."""
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
    """Largest number of the student's iterations between two updates of a
    learner.

    Args:
        weighting: Strategy with the learner.
        cfg: Config of the training. The learner's hook is looked up in its
            ``custom_hooks`` first, then in the strategy's own hooks.
        epoch: Number of the student's iterations in an epoch, which is also
            the result if there is no hook.
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
    """Time steps of contestants including their share of learner updates.

    Args:
        contestants: Contestants by name.
        others: Further steps to time, by name.
        warmup: Number of turns before the timed ones.
        iters: Number of timed turns.

    Returns:
        Seconds of each turn by name, and seconds of the updates' share of a
        step by contestant.
    """
    steps = {**others, **{n: c.step for n, c in contestants.items()}}
    shares: dict[str, list[float]] = {}
    for name, contestant in contestants.items():
        if contestant.learner is None:
            shares[name] = [0.] * iters
        elif contestant.learner.learns_from_all:
            shares[name] = [_share(contestant, max(2, warmup))] * iters
        else:
            contestant.step()  # the update learns from the last step
            steps[f'{name}, update'] = contestant.update
    kept = {n: share for n, c in contestants.items()
            if (share := c.kept_share()) < 1}
    steps.update({f'{n}, not kept': contestants[n].step_not_kept
                  for n in kept})
    times = in_turns(steps, warmup, iters)
    for name, share in kept.items():
        times[name] = [share * a + (1 - share) * b for a, b in zip(
            times[name], times.pop(f'{name}, not kept'))]
    for name, contestant in contestants.items():
        if name not in shares:
            shares[name] = [t / contestant.interval
                            for t in times.pop(f'{name}, update')]
        times[name] = [sum(t) for t in zip(times[name], shares[name])]
    return times, {n: statistics.median(s) for n, s in shares.items()}


def _share(contestant: DistilledContestant, steps: int) -> float:
    """Seconds of an update that learns from ``steps`` steps, divided by their
    number."""
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
        cfg: Config of a distillation.
        models: Configs of further models to time, by name.
        data: A batch in the data loader's format.
        epoch: Number of the student's iterations in an epoch.
        device: Device of the models.
        warmup: Number of turns before the timed ones.
        iters: Number of timed turns.

    Returns:
        ``steps``, with a row for each step (seconds, MiB and ratios), and the
        entries of :func:`.timing.setting`.
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
        # Ratios are of the same turn, so that a slow moment affects numerator
        # and denominator alike.
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
                kept_share=contestants[name].kept_share(),
                learner_mb=contestants[name].learner_memory() / 2**20)
    return dict(steps=rows, **setting(batch.images, iters))


def with_strategy(model: Mapping, name: str) -> Mapping:
    """Config of a distiller with another strategy.

    Args:
        model: Config of the distiller.
        name: Name of the strategy. Its settings replace those of ``model``
            where they differ from AVER's. If it is the strategy of ``model``,
            the options of ``model`` are kept.
    """
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
    """Format the result of :func:`measure` beside the paper's Table 6(c)."""
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
    """Tensors of a batch that are kept until the student's update is done."""
    yield seen.batch.images
    for output in seen.teachers.outputs:
        yield from output.tensors()
    for inner in seen.teachers.inner:
        yield from inner
