"""A training of a plan, as a job of the task runner."""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmengine.config import Config

from paper_tables import runs, sources
from paper_tables.cells import TOP1, Metric
from task_runner import Job


@dataclass
class Run(Job):
    """One training.

    Attributes:
        identity: Identity of the run, see :mod:`.plan`.
        config: Config without ``work_dir`` and paths of weights, which
            :meth:`prepare` adds.
        seed: Seed of all random generators.
        checkpoints: File with the weights of each source (a teacher, or an
            ``init_cfg``), in the order of :func:`.sources.find`.
        teacher_configs: File of the config of each source, or the config
            itself, in the same order.
        tool: Path of ``tools/train.py``.
        gpus: Number of processes of the run; 0 to start it without launcher.
        start: Checkpoint of the student that is the run's backbone; ``''`` for
            none.
        metric: What its result measures.
        lends: Whether other runs of the plan use its weights.
    """
    identity: str = ''
    config: Config = field(default_factory=Config)
    seed: int = 0
    checkpoints: list[str] = field(default_factory=list)
    teacher_configs: list[str | dict] = field(default_factory=list)
    tool: str = 'tools/train.py'
    gpus: int = 0
    start: str = ''
    metric: Metric = TOP1
    lends: bool = False

    @property
    def length(self) -> runs.Length:
        """Length of the training."""
        return runs.Length.of(self.config)

    @property
    def output(self) -> Path:
        """Path of the last checkpoint."""
        return self.folder / self.length.file()

    def result(self) -> runs.Result | None:
        """Result of the run; ``None`` if it is not done."""
        return runs.read_result(self.folder, self.identity)

    def done(self) -> str | None:
        """See :meth:`Job.done`. A run is done if it has a result; one whose
        weights other runs load needs its checkpoint, too."""
        result = self.result()
        if result is None or (self.lends and not self.output.is_file()):
            return None
        return self._in_words(result)

    @property
    def is_teacher(self) -> bool:
        """Whether the run trains a teacher."""
        return self.folder.parent.name == 'teachers'

    def prepare(self) -> list[str]:
        """Write the complete config; see :meth:`Job.prepare`."""
        cfg = copy.deepcopy(self.config)
        cfg.work_dir = str(self.folder)
        for source, config, weights in zip(
                sources.find(cfg.model), self.teacher_configs,
                self.checkpoints, strict=True):
            sources.fill(source, config, weights)
        path = self.folder / runs.CONFIG
        runs.write_text(path, cfg.pretty_text)
        times = runs.read_times(self.folder)
        if (commit := runs.commit()) not in times.commits:
            times.commits.append(commit)
            runs.write_json(self.folder / runs.TIMES, asdict(times))
        command = [sys.executable]
        if self.gpus:
            command += ['-m', 'torch.distributed.run', '--standalone',
                        f'--nproc_per_node={self.gpus}']
        command += [self.tool, str(path)]
        if self.gpus:
            command += ['--launcher', 'pytorch']
        if self.start:
            command += ['--backbone-from', self.start]
        point = self.resumes_from()
        return command + (['--resume', str(point)] if point else [])

    def resumes_from(self) -> Path | None:
        """Checkpoint from which the run is resumed; ``None`` if it starts from
        the beginning."""
        return runs.resume_point(self.folder, self.length, self.metric)

    def ended(self, seconds: float, cpu_seconds: float, threads: int,
              whole: bool) -> str:
        """See :meth:`Job.ended`."""
        times = runs.read_times(self.folder)
        times.seconds += seconds
        times.cpu_seconds += cpu_seconds
        times.attempts += 1
        times.threads = threads
        runs.write_json(self.folder / runs.TIMES, asdict(times))
        if not whole:
            return ''
        return self._in_words(runs.collect(
            self.folder, self.identity, self.seed, self.length, self.metric))

    def state(self) -> str:
        """State of the run in words: done, resumes or new."""
        if text := self.done():
            return f'done: {text}'
        point = self.resumes_from()
        return f'resumes from {point.name}' if point else 'new'

    def _in_words(self, result: runs.Result) -> str:
        return (f'{result.last:.2f} % (best {result.best:.2f} in '
                f'{self.length.word} {result.best_epoch})')
