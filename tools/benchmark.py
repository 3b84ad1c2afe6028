"""Time one step of a distillation, or of Knowledge Flow, and of its parts.

In one process and in turns, so that a machine whose speed drifts slows all of
them alike: the student's plain step, the teachers' forward pass, the step with
equal weights (AVER) and the step with the config's own strategy. Look at the
ratios; seconds are those of this machine. Medians over the iterations.

The strategy's step includes its share of the agent's updates, or of MMKD's
meta steps. Peak memory is what a step needs at once: all tensors that live
between steps (weights, gradients, optimiser, teachers, agent and its history
as full as it gets) plus the highest sum of what the step allocates.

With --strategies several are compared with AVER instead, all in turns, in one
Markdown table beside Table 6(c) of MTKD-RL's paper. Each has its defaults, or
the config's options where the config is its own.

With a KnowledgeFlowBackbone in the model (or a distiller's student) it is the
plain model's step, the teachers' forward pass and all Q alone, beside the step
with Knowledge Flow without and with the KL term and that of the student when
it is alone; see tools/paper_tables/flow_cost.py.

With --untrained no file but the config is needed: where the images are
missing, random ones of their size take their place.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

# The profiler, which measures memory on a CPU, talks much.
os.environ.setdefault('KINETO_LOG_LEVEL', '5')

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor

import mmkd_rl  # noqa: F401
from mmkd_rl.distillers import distillation_of
from mmkd_rl.export.student import plain_copy
from mmkd_rl.recipes import add_arguments, read_config
from mmkd_rl.records import Batch, SeenBatch
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.loading import load_model_config
from mmkd_rl.utils.cli import Options, clear_errors
from mmkd_rl.utils.configs import merge_options
from mmkd_rl.utils.patches import patch_mmengine
from mmkd_rl.weighting import Student
from mmkd_rl.weighting.mmkd.learner import MetaLearner
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner
from paper_tables.flow_cost import (
    flow_configs,
    measure,
    report,
    untrained,
)
from paper_tables.runs import write_json
from paper_tables.tables import COSTS
from paper_tables.timing import (
    Contestant,
    Step,
    describe,
    in_turns,
    nbytes,
    optimizer_tensors,
    peak,
    ratio,
    seconds,
    setting,
    tensors_of,
)

#: Fewer turns than this say little about a comparison.
FEW = 5
#: Images of an epoch by number of classes, where there are none to count.
EPOCHS = {100: 50_000, 1000: 1_281_167}

#: By the names that configs have in theirs.
STRATEGIES = dict(
    aver='AverageWeighting',
    eb_kd='EBKD',
    ae_kd='AEKD',
    amtml_kd='AMTMLKD',
    ca_mkd='CAMKD',
    mmkd='MMKD',
    mtkd_rl='MTKDRL')


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        help='config of a distillation, or a plain one with --distill')
    add_arguments(parser)
    parser.add_argument(
        '--iters', type=int, default=30, help='timed turns (%(default)s)')
    parser.add_argument(
        '--warmup', type=int, default=5, help='turns before (%(default)s)')
    parser.add_argument(
        '--strategies',
        nargs='+',
        type=lambda name: name.lower().replace('-', '_'),
        choices=list(STRATEGIES),
        metavar='NAME',
        help='compare these with AVER: %(choices)s')
    parser.add_argument('--json', metavar='FILE', help='write the figures')
    parser.add_argument(
        '--untrained',
        action='store_true',
        help='teachers without their checkpoints, and random images where '
        'there are none: costs are the same')
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show where in the code an error was raised')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, default={})
    args = parser.parse_args()
    for name in ('iters', 'warmup'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be >= 1, got {getattr(args, name)}')
    if args.strategies and args.iters < FEW:
        print(f'note: --iters {args.iters}: medians of so few turns mean '
              'little', file=sys.stderr)
    return args


class DistilledContestant(Contestant):
    """A contestant whose strategy, if it has one, may have a learner."""

    def __init__(self, model: Any, cfg: Config, data: dict) -> None:
        super().__init__(model, cfg, data)
        self.distillation = distillation_of(model)
        self.learner = self.distillation and \
            self.distillation.weighting.learner
        if self.learner:
            # Its hook's work is done here: nothing to warn of.
            self.learner.has_hook = True

    def step(self) -> None:
        """What the runner and the hooks do in an iteration."""
        super().step()
        if self.learner:
            assert self.distillation is not None
            assert self.distillation.last_step is not None
            self.learner.observe(self.distillation.last_step, self._student())

    def update(self) -> None:
        """What the learner's hook does now and then."""
        assert self.learner is not None
        self.learner.update(self._student())

    def _student(self) -> Student:
        assert self.distillation is not None
        return Student(self.model, self.distillation, self.optimizer)

    def resident(self) -> Iterable[Tensor]:
        """Tensors that live from one step to the next."""
        yield from super().resident()
        last = self.distillation and self.distillation.last_step
        if last and last.seen:
            yield from _seen_tensors(last.seen)
        if self.learner:
            yield from tensors_of(self.learner.networks)
        if isinstance(self.learner, AgentLearner):
            yield from optimizer_tensors(self.learner.updater.optimizer)
        elif isinstance(self.learner, MetaLearner):
            yield from optimizer_tensors(self.learner.optimizer)
            yield from self.learner.buffer.tensors()

    def memory(self) -> int:
        """Bytes at the highest point of an iteration, history left out."""
        highest = peak(self.step)
        if isinstance(self.learner, MetaLearner):
            highest = max(highest, peak(self.update))
        return highest + nbytes(self.resident())


def main() -> int:
    """Measure, print, write."""
    args = parse_args()
    patch_mmengine()
    with clear_errors(args.debug):
        return _run(args)
    return 0


def _run(args: argparse.Namespace) -> int:
    cfg = read_config(args)
    merge_options(cfg, args.cfg_options)
    kind = str(cfg.get('model', {}).get('type', 'nothing'))
    flows = bool(list(flow_configs(cfg.get('model'))))
    if not flows and kind.rpartition('.')[2] != 'MultiTeacherDistiller':
        raise ValueError(f'config {args.config!r} does not distil: its model '
                         f'is {kind!r} without a KnowledgeFlowBackbone; that '
                         'or a MultiTeacherDistiller is what is timed here; '
                         '--distill STRATEGY --teacher ... makes one')
    if flows and args.strategies:
        raise ValueError(f'--strategies {" ".join(args.strategies)}: config '
                         f'{args.config!r} has a KnowledgeFlowBackbone; '
                         'strategies are compared without one')
    init_default_scope(cfg.get('default_scope', 'mmkd_rl'))
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    data, iters_per_epoch = _batch(cfg, args.untrained)
    if args.untrained:
        untrained(cfg.model)
    model_cfg = cfg.model
    model_cfg.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if flows:
        result = measure(cfg, data, device, args.warmup, args.iters)
        print(report(result))
        _write(result, args.json)
        return 0
    if args.strategies:
        return _compare(args, cfg, data, iters_per_epoch, device)
    strategy = DistilledContestant(
        MODELS.build(copy.deepcopy(model_cfg)).to(device), cfg, data)
    aver_cfg = copy.deepcopy(model_cfg)
    aver_cfg.weighting = dict(type='mmkd_rl.AverageWeighting')
    aver = DistilledContestant(MODELS.build(aver_cfg).to(device), cfg, data)
    pool = aver.model.distillation.teachers
    student = DistilledContestant(plain_copy(aver.model), cfg, data)
    given = aver.model.data_preprocessor(data, True)
    images = given['inputs']
    batch = Batch(images, given['data_samples'])

    def teachers() -> None:
        with aver.optimizer.optim_context(aver.model):
            pool(batch)

    steps: dict[str, Step] = {
        'student': student.step,
        'teachers': teachers,
        'aver': aver.step,
        'strategy': strategy.step,
    }
    agent_s = _own_seconds(strategy, cfg, args.warmup)
    times = in_turns(steps, args.warmup, args.iters)
    median = {name: statistics.median(t) for name, t in times.items()}
    floor = [a + b for a, b in zip(times['student'], times['teachers'])]
    total = [t + agent_s for t in times['strategy']]
    history = _history_bytes(strategy, _interval(cfg, iters_per_epoch))
    peaks = dict(
        student=student.memory(),
        teachers=peak(teachers) +
        sum(nbytes(tensors_of(t)) for t in pool),
        aver=aver.memory(),
        strategy=strategy.memory() + history)
    result = dict(
        student_s=median['student'],
        teachers_s=median['teachers'],
        floor_s=statistics.median(floor),
        aver_s=median['aver'],
        strategy_s=median['strategy'] + agent_s,
        agent_s=agent_s,
        # Turn by turn, so that a slow moment hits both sides.
        strategy_over_floor=ratio(total, floor),
        strategy_over_aver=ratio(total, times['aver']),
        aver_over_floor=ratio(times['aver'], floor),
        peak_mb={n: b / 2**20 for n, b in peaks.items()},
        history_mb=history / 2**20,
        memory_strategy_over_aver=peaks['strategy'] / peaks['aver'],
        **setting(images, args.iters))
    _report(result)
    _write(result, args.json)
    return 0


def _batch(cfg: Config, untrained: bool) -> tuple[dict, int]:
    """A batch to train on, and the number of them in an epoch.

    Raises:
        FileNotFoundError: The images are missing and wanted.
    """
    try:
        loader = Runner.build_dataloader(
            copy.deepcopy(cfg.train_dataloader), seed=0)
        return next(iter(loader)), len(loader)
    except FileNotFoundError as error:
        if not untrained:
            raise FileNotFoundError(
                f'{error}. The images are read as in training; --untrained '
                'takes random ones') from error
        kind = _classifier(cfg)['type']
        if _classifier(cfg).get('head') is None:
            raise FileNotFoundError(
                f'{error}. --untrained takes random images for classifiers '
                f'only, and the model is a {kind}') from error
    size, classes = _image_size(cfg), _num_classes(cfg)
    batch = cfg.train_dataloader.batch_size
    print(f"note: no images in the config's folder: random ones, {size} x "
          f'{size}', file=sys.stderr)
    data = dict(
        inputs=list(torch.randint(256, (batch, 3, size, size),
                                  dtype=torch.uint8)),
        data_samples=[
            DataSample().set_gt_label(int(label))
            for label in torch.randint(classes, (batch, ))
        ])
    return data, max(1, EPOCHS.get(classes, 50_000) // batch)


def _image_size(cfg: Config) -> int:
    """What the training pipeline cuts images to.

    Raises:
        ValueError: It does not say.
    """
    dataset = cfg.train_dataloader.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    for step in reversed(dataset.get('pipeline') or []):
        for key in ('crop_size', 'scale', 'size'):
            if 'Erasing' not in step.type and key in step:
                size = step[key]
                return int(size if isinstance(size, int) else size[0])
    if _num_classes(cfg) == 100:
        return 32
    raise ValueError('the training pipeline has no crop_size or scale, so '
                     'there is no size for random images')


def _classifier(cfg: Config) -> dict:
    return load_model_config(
        cfg.model.get('student', cfg.model), 'model', keep_flow=True)[0]


def _num_classes(cfg: Config) -> int:
    for part in (cfg.get('data_preprocessor'), _classifier(cfg).get('head')):
        if part and part.get('num_classes'):
            return int(part['num_classes'])
    return 1000


def _compare(args: argparse.Namespace, cfg: Config, data: dict,
             iters_per_epoch: int, device: str) -> int:
    """Several strategies in turns."""
    names = list(dict.fromkeys(['aver', *args.strategies]))
    contestants = {}
    for name in names:
        model_cfg = copy.deepcopy(cfg.model)
        own = model_cfg.get('weighting', {})
        if own.get('type', '').rpartition('.')[2] != STRATEGIES[name]:
            own = dict(type=STRATEGIES[name])
        model_cfg.weighting = dict(own, type=f'mmkd_rl.{STRATEGIES[name]}')
        contestants[name] = DistilledContestant(
            MODELS.build(model_cfg).to(device), cfg, data)
    aver = contestants['aver']
    contestants = {
        'baseline': DistilledContestant(
            plain_copy(aver.model), cfg, data), **contestants
    }
    steps: dict[str, Step] = {n: c.step for n, c in contestants.items()}
    own_s = {
        n: _own_seconds(c, cfg, args.warmup)
        for n, c in contestants.items()
        if not isinstance(c.learner, MetaLearner)
    }
    meta = [n for n, c in contestants.items()
            if isinstance(c.learner, MetaLearner)]
    for name in meta:
        contestants[name].step()  # so that there is something to learn from
        steps[f'{name} meta'] = contestants[name].update
    times = in_turns(steps, args.warmup, args.iters)
    every = _meta_interval(cfg)
    for name in contestants:
        shares = times.pop(f'{name} meta', [0.] * args.iters)
        times[name] = [
            t + m / every + own_s.get(name, 0.)
            for t, m in zip(times[name], shares)
        ]
    agent_every = _interval(cfg, iters_per_epoch)
    peaks = {
        n: c.memory() + _history_bytes(c, agent_every)
        for n, c in contestants.items()
    }
    rows = {
        n: dict(
            step_s=statistics.median(times[n]),
            over_aver=ratio(times[n], times['aver']),
            peak_mb=peaks[n] / 2**20,
            memory_over_aver=peaks[n] / peaks['aver'])
        for n in contestants
    }
    inputs = aver.model.data_preprocessor(data, True)['inputs']
    result = dict(
        strategies=rows,
        meta_interval=every,
        **setting(inputs, args.iters))
    _report_comparison(result)
    _write(result, args.json)
    return 0


def _seen_tensors(seen: SeenBatch) -> Iterable[Tensor]:
    """Tensors that are kept of a batch until the student's update is done."""
    yield seen.batch.images
    for output in seen.teachers.outputs:
        yield from output.tensors()
    for inner in seen.teachers.inner:
        yield from inner


def _write(result: dict, path: str | None) -> None:
    if path is not None:
        write_json(Path(path), result)


def _own_seconds(contestant: DistilledContestant, cfg: Config,
                 iters: int) -> float:
    """Seconds per iteration of the student in which the strategy's own
    networks are trained."""
    learner = contestant.learner
    if isinstance(learner, MetaLearner):
        contestant.step()
        return statistics.median(
            seconds(contestant.update)
            for _ in range(3)) / _meta_interval(cfg)
    if not isinstance(learner, AgentLearner):
        return 0.
    per_batch = []
    for _ in range(3):
        for _ in range(max(2, iters)):
            contestant.step()
        batches = len(learner.history)
        per_batch.append(seconds(contestant.update) / batches)
    return statistics.median(per_batch)


def _interval(cfg: Config, iters_per_epoch: int) -> int:
    """The student's iterations between two of the agent's updates, at most."""
    for hook in cfg.get('custom_hooks', ()):
        if hook['type'].endswith('AgentAlternationHook'):
            longest = max(hook.get('warmup', 1), hook.get('interval', 1))
            return longest * (
                iters_per_epoch if hook.get('by_epoch', True) else 1)
    return iters_per_epoch


def _meta_interval(cfg: Config) -> int:
    """The student's iterations between two meta steps."""
    for hook in cfg.get('custom_hooks', ()):
        if hook['type'].endswith('MetaWeightingHook'):
            return hook.get('interval', 5)
    return 5


def _history_bytes(contestant: DistilledContestant, iters: int) -> int:
    """Memory of the history when it is fullest, ``iters`` iterations after
    the agent's last update."""
    learner = contestant.learner
    if not isinstance(learner, AgentLearner):
        return 0
    history = learner.history
    contestant.step()
    batch = next(iter(history))
    size = sum(
        getattr(batch, f.name).numel() * getattr(batch, f.name).element_size()
        for f in fields(batch))
    return min(history.max_bytes // size, iters) * size


def _report_comparison(result: dict) -> None:
    print(f"{describe(result)}; a meta step every {result['meta_interval']} "
          'iterations\n')
    print('| method | ms a step | / AVER | peak MiB | / AVER | '
          'paper: s an epoch | / AVER | paper: GB | / AVER |')
    print('|---|--:|--:|--:|--:|--:|--:|--:|--:|')
    for name, row in result['strategies'].items():
        cells = [
            name, f"{1000 * row['step_s']:.1f}", f"{row['over_aver']:.3f}",
            f"{row['peak_mb']:.1f}", f"{row['memory_over_aver']:.3f}"
        ]
        paper = COSTS.get(name.replace('_', '-'))
        if paper is not None:
            for value, aver in zip(paper, COSTS['aver']):
                cells += [str(value), f'{value / aver:.2f}']
        else:
            cells += [''] * 4
        print(f"| {' | '.join(cells)} |")


def _report(result: dict) -> None:
    def ms(key: str) -> str:
        return f'{1000 * result[key]:9.2f} ms'

    memory = {n: f'{m:9.1f} MiB' for n, m in result['peak_mb'].items()}
    print(f'{describe(result)}\n')
    print(f"student, plain step    {ms('student_s')}  {memory['student']}")
    print(f"teachers, forward      {ms('teachers_s')}  {memory['teachers']}")
    print(f"floor, their sum       {ms('floor_s')}")
    print(f"AVER, step             {ms('aver_s')}  {memory['aver']}")
    print(f"strategy, step         {ms('strategy_s')}  {memory['strategy']}")
    print(f"  of that its training {ms('agent_s')}  "
          f"{result['history_mb']:9.1f} MiB history\n")
    print(f"strategy / floor  {result['strategy_over_floor']:.3f}   "
          f"AVER / floor  {result['aver_over_floor']:.3f}   "
          f"strategy / AVER  {result['strategy_over_aver']:.3f}   "
          f"memory, strategy / AVER  "
          f"{result['memory_strategy_over_aver']:.3f}")


if __name__ == '__main__':
    sys.exit(main())
