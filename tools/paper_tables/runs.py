"""Folder of a run: config, logs, checkpoints, times and result.

A folder has ``config.py`` (complete, for ``tools/train.py``), ``log.txt``,
MMEngine's logs and checkpoints, ``times.json`` and, when the run is done,
``result.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

import mmkd_rl
from mmkd_rl.utils import checkpoint_io
from paper_tables.cells import TOP1, Metric

RESULT, TIMES, CONFIG = 'result.json', 'times.json', 'config.py'
FLOW = 'knowledge_flow.json'


@dataclass(frozen=True)
class Length:
    """Length of a training.

    Attributes:
        last: Number of epochs, or of iterations.
        by_epoch: Whether it is counted in epochs.
        val_interval: Epochs or iterations between two validations.
    """
    last: int
    by_epoch: bool = True
    val_interval: int = 1

    @classmethod
    def of(cls, cfg: Config) -> Length:
        """Length of a config's training."""
        loop = cfg.train_cfg
        by_epoch = 'max_epochs' in loop
        return cls(loop['max_epochs' if by_epoch else 'max_iters'], by_epoch,
                   loop.get('val_interval', 1 if by_epoch else 1000))

    @property
    def unit(self) -> str:
        """MMEngine's name of the unit in names of checkpoints."""
        return 'epoch' if self.by_epoch else 'iter'

    @property
    def word(self) -> str:
        """Name of the unit for the user."""
        return 'epoch' if self.by_epoch else 'iteration'

    def file(self) -> str:
        """File name of the last checkpoint."""
        return f'{self.unit}_{self.last}.pth'


@dataclass
class Result:
    """Result of a run.

    Attributes:
        identity: Identity of the run, see :mod:`paper_tables.plan`.
        seed: Seed of the random generators.
        accuracy: (epoch, metric in %) of each validation; the iteration
            instead of the epoch if the training counts iterations.
        last: Metric at the end, %.
        best: Highest value, %.
        best_epoch: Epoch or iteration of the highest value.
        seconds: Wall time of all attempts.
        cpu_seconds: Processor time of all attempts.
        attempts: Number of processes that were started.
        version: Version of the package.
        commit: Commit of the repository at the start; ``''`` if unknown; with
            "+" if files were changed. Several commits if it was another one
            at a resume.
        weights: File name of the record of the teachers' weights; ``''`` if
            there is none.
        threads: Number of threads of the last process; 0 for no limit.
        flow: File name of the record of Knowledge Flow's p_w; ``''`` if there
            is none.
    """
    identity: str
    seed: int
    accuracy: list[list[float]]
    last: float
    best: float
    best_epoch: int
    seconds: float
    cpu_seconds: float
    attempts: int
    version: str = mmkd_rl.__version__
    commit: str = ''
    weights: str = ''
    threads: int = 0
    flow: str = ''


@dataclass
class Times:
    """Cost of a run so far.

    Attributes:
        seconds: Wall time of all attempts.
        cpu_seconds: Processor time of all attempts.
        attempts: Number of processes that were started.
        threads: Number of threads of the last process; 0 for no limit.
        commits: Different commits of the repository at the attempts.
    """
    seconds: float = 0.
    cpu_seconds: float = 0.
    attempts: int = 0
    threads: int = 0
    commits: list[str] = field(default_factory=list)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file completely or not at all."""
    write_text(path, json.dumps(content, indent=1) + '\n')


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""

    def write(temporary: str) -> None:
        Path(temporary).write_text(text)

    checkpoint_io.write_whole(str(path), write)


def read_result(folder: Path, identity: str) -> Result | None:
    """Read the result of a finished run; ``None`` if the run is not finished
    or the result has another identity."""
    try:
        result = Result(**json.loads((folder / RESULT).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return result if result.identity == identity else None


def read_times(folder: Path) -> Times:
    """Read the cost of a run so far; zeros if it cannot be read."""
    try:
        return Times(**json.loads((folder / TIMES).read_text()))
    except (OSError, ValueError, TypeError):
        return Times()


def read_curve(folder: Path, metric: Metric = TOP1) -> dict[int, float]:
    """Read a metric in % by epoch or iteration; for one that was run twice,
    that of the later attempt."""
    curve: dict[int, float] = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off when the process was killed
            if metric.key in entry:
                curve[int(entry['step'])] = round(
                    float(entry[metric.key]) * metric.factor, 4)
    return dict(sorted(curve.items()))


def checkpoints(folder: Path, length: Length) -> dict[int, Path]:
    """Checkpoint files of a run by epoch or iteration."""
    return {
        int(path.stem.partition('_')[2]): path
        for path in folder.glob(f'{length.unit}_*.pth')
        if path.stem.partition('_')[2].isdigit()
    }


def resume_point(folder: Path, length: Length,
                 metric: Metric = TOP1) -> Path | None:
    """Checkpoint to resume from; ``None`` to start from the beginning.

    It is the last one whose epoch or iteration was validated or is not to be
    validated: MMEngine writes a checkpoint before the validation of the same
    epoch, and a resumed run does not make up for that validation.
    """
    curve = read_curve(folder, metric)
    for at, path in sorted(checkpoints(folder, length).items(), reverse=True):
        due = at % length.val_interval == 0 or at == length.last
        if at <= length.last and (not due or at in curve):
            return path
    return None


def collect(folder: Path, identity: str, seed: int, length: Length,
            metric: Metric = TOP1) -> Result:
    """Write ``result.json`` of a run that has ended, and delete all
    checkpoints but the last.

    Args:
        folder: Folder of the run.
        identity: Identity of the run.
        seed: Seed of the run.
        length: Length of the run.
        metric: Metric of the run.

    Raises:
        FileNotFoundError: The last checkpoint or its metric is missing.
    """
    curve, found = read_curve(folder, metric), checkpoints(folder, length)
    last = length.last
    if last not in found or last not in curve:
        raise FileNotFoundError(
            f'{folder} has no '
            f'{"checkpoint" if last not in found else metric.title} of '
            f'{length.word} {last}')
    best = max(curve, key=lambda at: (curve[at], -at))
    times = read_times(folder)
    weights, flow = folder / 'teacher_weights.json', folder / FLOW
    result = Result(
        identity,
        seed, [[at, value] for at, value in curve.items()],
        curve[last],
        curve[best],
        best,
        round(times.seconds, 1),
        round(times.cpu_seconds, 1),
        times.attempts,
        commit=' '.join(times.commits),
        weights=weights.name if weights.is_file() else '',
        threads=times.threads,
        flow=flow.name if flow.is_file() else '')
    write_json(folder / RESULT, asdict(result))
    for at, path in found.items():
        if at != last:
            path.unlink()
    return result


def commit() -> str:
    """Commit of the repository, with ``+`` if tracked files are changed;
    ``''`` if unknown."""
    root = Path(mmkd_rl.__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(['git', '-C', str(root), *arguments],
                              capture_output=True, text=True, check=True,
                              env={**os.environ, 'GIT_OPTIONAL_LOCKS': '0'},
                              timeout=20).stdout.strip()

    try:
        if Path(git('rev-parse', '--show-toplevel')).resolve() != root:
            return ''  # an installed copy inside another repository
        dirty = git('status', '--porcelain', '--untracked-files=no')
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if dirty else '')
    except (OSError, subprocess.SubprocessError):
        return ''
