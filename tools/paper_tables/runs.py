"""A run's folder: what was run, how far it is, what came out.

``config.py`` (complete, for ``tools/train.py``), ``log.txt``, MMEngine's own
logs and checkpoints, ``times.json`` and, once it is done, ``result.json``.
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
        identity: Of the run, see :class:`paper_tables.plan.Run`.
        seed: Of its random generators.
        accuracy: (epoch, top-1 in %) after each validated epoch.
        last: The last of them.
        best: The highest.
        best_epoch: When.
        seconds: Wall time, all attempts together.
        cpu_seconds: Processor time, likewise.
        attempts: Processes that it took.
        version: Of the package.
        commit: Of the repository when it was started; ``''``: unknown; "+":
            with changes. Several, if it was changed before a resume.
        weights: Where the teachers' weights are noted; ``''``: nowhere.
        threads: Of the last process; 0: not limited.
        flow: Where Knowledge Flow's p_w are noted; ``''``: nowhere.
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
        seconds: Wall time, all attempts together.
        cpu_seconds: Processor time, likewise.
        attempts: Processes that it took.
        threads: Of the last process; 0: not limited.
        commits: Of the repository, one for each that it was started with.
    """
    seconds: float = 0.
    cpu_seconds: float = 0.
    attempts: int = 0
    threads: int = 0
    commits: list[str] = field(default_factory=list)


def write_json(path: Path, content: Any) -> None:
    """Write it whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + '\n')


def write_text(path: Path, text: str) -> None:
    """Write it whole or not at all."""

    def write(temporary: str) -> None:
        Path(temporary).write_text(text)

    checkpoint_io.write_whole(str(path), write)


def read_result(folder: Path, identity: str) -> Result | None:
    """A finished run's result; ``None``: not finished, or another run's."""
    try:
        result = Result(**json.loads((folder / RESULT).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return result if result.identity == identity else None


def read_times(folder: Path) -> Times:
    """Read the cost so far; zero if the record cannot be read."""
    try:
        return Times(**json.loads((folder / TIMES).read_text()))
    except (OSError, ValueError, TypeError):
        return Times()


def read_curve(folder: Path) -> dict[int, float]:
    """Top-1 accuracy in % by epoch; one that was run twice counts as run
    last."""
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
    """Checkpoints by epoch."""
    return {
        int(path.stem.partition('_')[2]): path
        for path in folder.glob('epoch_*.pth')
        if path.stem.partition('_')[2].isdigit()
    }


def resume_point(folder: Path, epochs: int, val_interval: int) -> Path | None:
    """The checkpoint to go on from; ``None``: begin anew.

    The last one whose epoch was validated, if it was to be: MMEngine writes a
    checkpoint before it validates and never comes back for that.
    """
    curve = read_curve(folder)
    for epoch, path in sorted(checkpoints(folder).items(), reverse=True):
        due = epoch % val_interval == 0 or epoch == epochs
        if epoch <= epochs and (not due or epoch in curve):
            return path
    return None


def collect(folder: Path, identity: str, seed: int, epochs: int) -> Result:
    """Make ``result.json`` of a run that has ended, and tidy up.

    Raises:
        FileNotFoundError: Its last checkpoint or accuracy is missing.
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
    """The repository's commit, with ``+`` if something was changed since."""
    root = Path(mmkd_rl.__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(['git', '-C', str(root), *arguments],
                              capture_output=True, text=True, check=True,
                              env={**os.environ, 'GIT_OPTIONAL_LOCKS': '0'},
                              timeout=20).stdout.strip()

    try:
        if Path(git('rev-parse', '--show-toplevel')).resolve() != root:
            return ''  # somebody else's repository around an installed copy
        dirty = git('status', '--porcelain', '--untracked-files=no')
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if dirty else '')
    except (OSError, subprocess.SubprocessError):
        return ''
