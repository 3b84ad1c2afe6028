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

import mmkd_rl
from mmkd_rl.utils import checkpoint_io

RESULT, TIMES, CONFIG = 'result.json', 'times.json', 'config.py'
METRIC = 'accuracy/top1'
FLOW = 'knowledge_flow.json'


@dataclass
class Result:
    """Result of a run.

    Attributes:
        identity: Identity of the run, see :mod:`paper_tables.plan`.
        seed: Seed of the random generators.
        accuracy: (epoch, top-1 accuracy in %) of each validated epoch.
        last: Accuracy of the last epoch, %.
        best: Highest accuracy, %.
        best_epoch: Epoch of the highest accuracy.
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


def read_curve(folder: Path) -> dict[int, float]:
    """Read the top-1 accuracy in % by epoch; for an epoch that was run twice,
    that of the later attempt."""
    curve: dict[int, float] = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off when the process was killed
            if METRIC in entry:
                curve[int(entry['step'])] = float(entry[METRIC])
    return dict(sorted(curve.items()))


def checkpoints(folder: Path) -> dict[int, Path]:
    """Checkpoint files of a run by epoch."""
    return {
        int(path.stem.partition('_')[2]): path
        for path in folder.glob('epoch_*.pth')
        if path.stem.partition('_')[2].isdigit()
    }


def resume_point(folder: Path, epochs: int, val_interval: int) -> Path | None:
    """Checkpoint to resume from; ``None`` to start from the beginning.

    It is the last one whose epoch was validated or is not to be validated:
    MMEngine writes a checkpoint before the validation of the same epoch, and
    a resumed run does not make up for that validation.
    """
    curve = read_curve(folder)
    for epoch, path in sorted(checkpoints(folder).items(), reverse=True):
        due = epoch % val_interval == 0 or epoch == epochs
        if epoch <= epochs and (not due or epoch in curve):
            return path
    return None


def collect(folder: Path, identity: str, seed: int, epochs: int) -> Result:
    """Write ``result.json`` of a run that has ended, and delete all
    checkpoints but the last.

    Args:
        folder: Folder of the run.
        identity: Identity of the run.
        seed: Seed of the run.
        epochs: Number of epochs of the run.

    Raises:
        FileNotFoundError: The last epoch's checkpoint or accuracy is missing.
    """
    curve, found = read_curve(folder), checkpoints(folder)
    if epochs not in found or epochs not in curve:
        raise FileNotFoundError(
            f'{folder} has no '
            f'{"checkpoint" if epochs not in found else "accuracy"} of epoch '
            f'{epochs}')
    best = max(curve, key=lambda epoch: (curve[epoch], -epoch))
    times = read_times(folder)
    weights, flow = folder / 'teacher_weights.json', folder / FLOW
    result = Result(
        identity,
        seed, [[e, a] for e, a in curve.items()],
        curve[epochs],
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
    for epoch, path in found.items():
        if epoch != epochs:
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
