"""Runs jobs as subprocesses, one after another or some side by side.

A job's process holds a lock on its folder (an open file that it inherits), so
that a second conductor in the same work directory, or one that was started
while an orphan of a killed one still trains, waits instead of training the
same thing twice. Jobs run in sessions of their own: Ctrl-C comes to the
conductor alone, which stops them and says how to go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

LOG, LOCK = 'log.txt', '.lock'
_POLL_SECONDS = 0.2


class Interrupted(Exception):
    """The user stopped the conductor; the jobs are stopped, too."""


@dataclass
class Job:
    """Something that a command does in a folder of its own.

    Attributes:
        name: For the user; unique.
        folder: Its own.
        needs: Names of the jobs that must be done before.
        expected: Seconds; ``None``: unknown.
    """
    name: str
    folder: Path
    needs: list[str] = field(default_factory=list)
    expected: float | None = None

    def done(self) -> str | None:
        """Its result in a few words, if it is done."""
        raise NotImplementedError

    def prepare(self) -> list[str]:
        """Write what the command needs; the folder exists.

        Returns:
            The command.
        """
        raise NotImplementedError

    def ended(self, seconds: float, cpu_seconds: float, threads: int,
              whole: bool) -> str:
        """Note what it has cost, and collect the result.

        Args:
            seconds: Wall time of this attempt.
            cpu_seconds: Processor time of it.
            threads: That it was given; 0: as many as it likes.
            whole: Whether its command came to its end; else it was stopped
                or failed, and there is no result.

        Returns:
            The result in a few words.

        Raises:
            FileNotFoundError: The output is missing.
        """
        raise NotImplementedError


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    start: float
    lock: IO


class Conductor:
    """Runs what is not done.

    A job that fails does not stop the others, except those that need it.

    Args:
        jobs: In the order of preference.
        side_by_side: Processes at once.
        threads: Of each process; 0: not limited.
        say: Where lines for the user go.
    """

    def __init__(self,
                 jobs: Iterable[Job],
                 side_by_side: int = 1,
                 threads: int = 0,
                 say: Callable[[str], None] = print) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.side_by_side, self.threads, self.say = side_by_side, threads, say
        self.results: dict[str, str] = {}
        self.reused: list[str] = []
        self.failed: dict[str, str] = {}
        self._running: list[_Running] = []
        self._waiting: set[str] = set()
        self._stopped = False

    def run(self) -> None:
        """Run until all is done or has failed.

        Raises:
            Interrupted: By Ctrl-C or SIGTERM; every process has ended.
        """
        self._skip_what_is_done()
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            while len(self.results) + len(self.failed) < len(self.jobs):
                if self._stopped:
                    raise Interrupted
                self._start_what_is_ready()
                if self._running or self._waiting:
                    time.sleep(_POLL_SECONDS)
                self._collect()
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self._stopped = True

    def _skip_what_is_done(self) -> None:
        for job in self.jobs.values():
            if (text := job.done()) is not None:
                self.results[job.name] = text
                self.reused.append(job.name)

    def _start_what_is_ready(self) -> None:
        busy = {running.job.name for running in self._running}
        for job in self.jobs.values():
            if job.name in busy or self._is_settled(job):
                continue
            broken = [name for name in job.needs if name in self.failed]
            if broken:
                self.failed[job.name] = f'needs {broken[0]}, which failed'
                self.say(f'{self._count(job)} {job.name}: not run, it '
                         f'{self.failed[job.name]}')
            elif len(self._running) < self.side_by_side and all(
                    name in self.results for name in job.needs):
                self._start(job)

    def _is_settled(self, job: Job) -> bool:
        return job.name in self.results or job.name in self.failed

    def _start(self, job: Job) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        lock = (job.folder / LOCK).open('w')
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            if job.name not in self._waiting:
                self._waiting.add(job.name)
                self.say(f'{self._count(job)} {job.name}: another process '
                         f'trains it ({job.folder}); waiting for that')
            return
        self._waiting.discard(job.name)
        # Another conductor may have finished it meanwhile.
        if (text := job.done()) is not None:
            lock.close()
            self.results[job.name] = text
            self.reused.append(job.name)
            return
        command = job.prepare()
        with (job.folder / LOG).open('ab') as log:
            log.write(f'$ {shlex.join(command)}\n'.encode())
            log.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                pass_fds=(lock.fileno(), ),
                start_new_session=True)
        self._running.append(_Running(job, process, time.monotonic(), lock))
        again = ', resumed' if '--resume' in command else ''
        self.say(f'{self._count(job)} {job.name}: started{again}, expected '
                 f'{clock(job.expected)}; log: {job.folder / LOG}')

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ, PYTHONUNBUFFERED='1', MPLBACKEND='Agg')
        if self.threads:
            # More threads than cores make PyTorch many times slower.
            for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
                environment[name] = str(self.threads)
        return environment

    def _collect(self) -> None:
        for running in list(self._running):
            if (cpu := self._reap(running)) is not None:
                self._close(running, cpu)

    def _reap(self, running: _Running) -> float | None:
        """Processor seconds of an ended process; ``None``: it still runs."""
        # wait4 and not poll: it also says what the process has used.
        pid, status, usage = os.wait4(running.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self._running.remove(running)
        running.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    def _close(self, running: _Running, cpu: float) -> None:
        job, seconds = running.job, time.monotonic() - running.start
        code = running.process.returncode
        try:
            text = job.ended(seconds, cpu, self.threads, code == 0)
        except FileNotFoundError as error:
            code, text = 1, str(error)
        finally:
            running.lock.close()
        if code != 0:
            self.failed[job.name] = text or f'exit code {code}'
            self.say('\n'.join([
                f'{self._count(job)} {job.name}: FAILED after '
                f'{clock(seconds)}, {self.failed[job.name]}; the end of '
                f'{job.folder / LOG}:', *tail(job.folder / LOG)
            ]))
            return
        self.results[job.name] = text
        self.say(f'{self._count(job)} {job.name}: {text} in {clock(seconds)}'
                 f'{self._rest()}')

    def _count(self, job: Job) -> str:
        number = list(self.jobs).index(job.name) + 1
        return f'[{number}/{len(self.jobs)}]'

    def _rest(self) -> str:
        left = [job for job in self.jobs.values() if not self._is_settled(job)]
        if not left:
            return ''
        seconds = total_expected(left, self.side_by_side)
        about = '' if seconds is None else f', about {clock(seconds)}'
        return f'; {len(left)} left{about}'

    def _stop(self) -> None:
        """End what still runs; its last checkpoint is there to go on from."""
        for running in self._running:
            _signal(running.process, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while self._running:
            for running in list(self._running):
                if time.monotonic() > deadline:
                    _signal(running.process, signal.SIGKILL)
                if (cpu := self._reap(running)) is not None:
                    running.job.ended(time.monotonic() - running.start, cpu,
                                      self.threads, False)
                    running.lock.close()
            time.sleep(.05)


def _signal(process: subprocess.Popen, number: int) -> None:
    """To the process and its data loaders."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def total_expected(jobs: Iterable[Job], side_by_side: int) -> float | None:
    """Seconds of all; ``None`` if one is unknown."""
    seconds = [job.expected for job in jobs]
    if any(s is None for s in seconds):
        return None
    return sum(s for s in seconds if s is not None) / side_by_side


def clock(seconds: float | None) -> str:
    """Seconds as m:ss or h:mm:ss."""
    if seconds is None:
        return 'unknown'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{rest:02d}' if hours else \
        f'{minutes}:{rest:02d}'


def tail(path: Path, lines: int = 12) -> list[str]:
    """The last lines of a log, indented."""
    try:
        text = path.read_text(errors='replace')
    except OSError:
        return []
    return [f'  | {line}' for line in text.splitlines()[-lines:]]
