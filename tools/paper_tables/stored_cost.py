"""Cost of an iteration with stored teachers, compared with the student's own.

Timed in turns in one process, with reading and augmenting of the images: the
student alone, with its own data set, and the distillation with the first one,
two, ... teachers of the config, whose stores must be full.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmkd_rl.engine import stored
from mmkd_rl.export.student import plain_copy
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.configs import class_name
from paper_tables.distillation_cost import DistilledContestant
from paper_tables.text import markdown
from paper_tables.timing import describe, ratio, setting

#: Iterations of one turn.
_EACH = 4


class LoadingContestant(DistilledContestant):
    """A model that reads a new batch for each step.

    Args:
        model, cfg: See :class:`DistilledContestant`.
        loader: Config of the data loader.
    """

    def __init__(self, model: Any, cfg: Config, loader: dict) -> None:
        # Workers would read for one contestant while another is timed.
        self.loader = Runner.build_dataloader(dict(
            copy.deepcopy(loader), num_workers=0, persistent_workers=False),
            seed=0)
        super().__init__(model, cfg, {}, len(self.loader))
        if self.distillation:
            stored.begin(self.distillation, model, self.loader.dataset)
        self._batches = self._read()

    def _read(self) -> Iterator[dict]:
        epoch = 0
        while True:
            sampler = self.loader.sampler
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
            yield from self.loader
            epoch += 1

    def step(self) -> None:
        """Read a batch and run an iteration."""
        self.data = next(self._batches)
        super().step()

    def computed(self) -> int:
        """Number of images on which a teacher was run."""
        return sum(e.run_count for e in self.distillation.teachers.stored
                   ) if self.distillation else 0


def is_stored(model: dict) -> bool:
    """Whether the teachers of a distillation's config store their outputs."""
    return any(class_name((t.get('executor') or {}).get('type', '')
                          ) == 'stored' for t in model.get('teachers', ())
               if isinstance(t.get('executor'), dict))


def measure(cfg: Config, warmup: int, iters: int) -> dict:
    """Time iterations in turns.

    Args:
        cfg: Config of a distillation with stored teachers.
        warmup: Number of turns before the timed ones.
        iters: Number of timed turns, of four iterations each.

    Raises:
        ValueError: A store is not full.
    """
    teachers = cfg.model.teachers
    whole = MODELS.build(cfg.model)
    steps = {'student alone': LoadingContestant(
        plain_copy(whole), cfg, _plain(cfg.train_dataloader))}
    for count in range(1, len(teachers) + 1):
        model = MODELS.build(dict(cfg.model, teachers=teachers[:count]))
        steps[_name(count)] = LoadingContestant(model, cfg,
                                                cfg.train_dataloader)
    times: dict[str, list[tuple[float, float]]] = {n: [] for n in steps}
    for turn in range(warmup + iters):
        for name in list(steps) if turn % 2 else reversed(steps):
            before = steps[name].computed()
            clocks = time.perf_counter(), time.process_time()
            for _ in range(_EACH):
                steps[name].step()
            passed = (time.perf_counter() - clocks[0],
                      time.process_time() - clocks[1])
            if turn >= warmup:
                times[name].append(passed)
                if steps[name].computed() > before:
                    raise ValueError('the stores are not full: fill them with '
                                     'tools/cache_teachers.py and the same '
                                     'arguments')
    inputs = steps['student alone'].data['inputs']
    images = torch.empty(len(inputs), *inputs[0].shape, device='meta')
    return dict(
        setting(images, iters), iterations=_EACH,
        strategy=class_name(cfg.model.weighting.type),
        wall={n: [w / _EACH for w, _ in t] for n, t in times.items()},
        cpu={n: [c / _EACH for _, c in t] for n, t in times.items()})


def report(result: dict) -> str:
    """The measurement as a Markdown table."""
    alone = 'student alone'
    rows = [[name, *(f'{1e3 * statistics.median(result[clock][name]):.1f}'
                     for clock in ('wall', 'cpu')),
             *(f'{ratio(result[clock][name], result[clock][alone]):.3f}'
               for clock in ('wall', 'cpu'))] for name in result['wall']]
    return (f'{result["strategy"]}, {describe(result)}; a turn is '
            f'{result["iterations"]} iterations, with reading of the images '
            'and without updates of an agent\n\n' + markdown(
                ['iteration', 'ms', 'ms of processor', 'of the student',
                 'of its processor time'], rows))


def _plain(loader: dict) -> dict:
    """The loader's config without views."""
    plain = copy.deepcopy(loader)
    if class_name(plain['sampler']['type']) == 'ViewSampler':
        plain['sampler'] = plain['sampler'].get('sampler') or dict(
            type='DefaultSampler', shuffle=True)
    if class_name(plain['dataset']['type']) == 'RepeatableViews':
        plain['dataset'] = plain['dataset']['dataset']
    return plain


def _name(count: int) -> str:
    return f'{count} stored teacher' + ('s' if count > 1 else '')
