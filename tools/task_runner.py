"""Runs jobs as subprocesses, some side by side, each after what it needs.

doit orders the jobs, skips what is done and leaves out what needs a failed
one. Here is what it lacks: each job has a log, a process group and a lock.

A job's process itself holds the lock on its folder (an open file that it
inherits), so that a second runner in the same folder, or one that was started
while an orphan of a killed one still trains, waits instead of training the
same thing twice. Jobs run in sessions of their own: Ctrl-C comes to the
runner alone, which stops them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from needs import need

LOG, LOCK = 'log.txt', '.lock'
_POLL_SECONDS = 0.2
EPOCHS = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]')
_ITERATIONS = re.compile(r'Iter\(train\)\s+\[\s*(\d+)/(\d+)\]')


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; the jobs are stopped, too."""


class _Stopped(KeyboardInterrupt):
    """A job has failed and no other shall go on.

    Like :class:`Interrupted` no ``Exception``: doit prints those.
    """


@dataclass
class Job(ABC):
    """A command that runs in a folder of its own.

    Attributes:
        name: Shown to the user; unique, without ``=`` and ``*``.
        folder: The job's folder.
        needs: Names of the jobs that must be done before.
        expected: Expected time in seconds; ``None``: unknown.
        epochs: Number of epochs of a training, for its progress.
    """
    name: str
    folder: Path
    needs: list[str] = field(default_factory=list)
    expected: float | None = None
    epochs: int = 1

    @abstractmethod
    def done(self) -> str | None:
        """The result in a few words; ``None`` if the job is not done. Called
        after all jobs that this one needs."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Write the files that the command needs; the folder exists.

        Returns:
            The command.
        """

    @abstractmethod
    def ended(self, seconds: float, cpu_seconds: float, threads: int,
              whole: bool) -> str:
        """Record the time of an attempt, and collect the result.

        Args:
            seconds: Wall time of the attempt.
            cpu_seconds: Processor time of the attempt.
            threads: Number of threads of the process; 0: not limited.
            whole: Whether the command ended by itself with exit code 0; else
                it was stopped or failed, and there is no result.

        Returns:
            The result in a few words.

        Raises:
            FileNotFoundError: The output is missing.
        """

    def progress(self) -> str:
        """Progress of a training as its log has it: ``' 40%'``."""
        with contextlib.suppress(OSError), \
                (self.folder / LOG).open('rb') as log:
            log.seek(max(0, os.path.getsize(log.name) - 4096))
            text = log.read().decode(errors='replace')
            if found := EPOCHS.findall(text):
                epoch, step, length = map(int, found[-1])
                return f'{(epoch - 1 + step / length) / self.epochs:4.0%}'
            if found := _ITERATIONS.findall(text):
                step, length = map(int, found[-1])
                return f'{step / length:4.0%}'
        return 'starts'


class Runner:
    """Runs what is not done.

    Args:
        jobs: In the order of preference.
        side_by_side: Processes at once.
        threads: Of each process; 0: not limited.
        say: Where lines for the user go.
        keep_going: A job that fails stops only those that need it; otherwise
            all.
        environment: Variables that all processes are given.
    """

    def __init__(self,
                 jobs: Iterable[Job],
                 side_by_side: int = 1,
                 threads: int = 0,
                 say: Callable[[str], None] = print,
                 keep_going: bool = True,
                 environment: Mapping[str, str] | None = None) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.side_by_side, self.threads, self.say = side_by_side, threads, say
        self.keep_going = keep_going
        self.results: dict[str, str] = {}
        self.reused: list[str] = []
        self.failed: dict[str, str] = {}
        self._environment = dict(
            os.environ, PYTHONUNBUFFERED='1', MPLBACKEND='Agg',
            **(environment or {}))
        if threads:
            # More threads than cores make PyTorch many times slower.
            self._environment.update(
                OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        self._start = time.monotonic()
        self._running: dict[str, tuple[subprocess.Popen, float]] = {}
        # Names of those that may start, of which the first in order does.
        self._ready: set[str] = set()
        # Jobs are asked, and lines are said, by one thread at a time.
        self._turn = threading.Condition()
        self._stopping = False

    def run(self) -> None:
        """Run until all is done or has failed.

        Raises:
            Interrupted: By Ctrl-C or SIGTERM; every process has ended.
        """
        with _signals(_interrupt):
            try:
                with self._status_line():
                    self._run_doit()
            except _Stopped:
                pass
            finally:
                with _signals(lambda number, frame: None):
                    self._stop()

    def _run_doit(self) -> None:
        doit = need('doit.doit_cmd')
        reporter = need('doit.reporter').ZeroReporter(sys.stdout, {})
        reporter.add_failure = self._on_failure
        config = dict(
            # What is done is known by the jobs: doit's own record is written
            # at its end only, so that a kill would lose it.
            backend='sqlite3', dep_file=':memory:', reporter=reporter,
            verbosity=0, par_type='thread',
            # A thread a job: one that waits for another runner's process
            # leaves its slot to the next.
            num_process=len(self.jobs))
        config['continue'] = True
        loader = need('doit.cmd_base').ModuleTaskLoader(
            dict(task_jobs=self._tasks, DOIT_CONFIG=config))
        # Without the file of settings that lies where the user is.
        if self.jobs and doit.DoitMain(loader, ()).run(['run']) == 3:
            raise RuntimeError('doit cannot run the jobs; the reason stands '
                               'above')

    def _tasks(self) -> Iterator[dict[str, Any]]:
        for job in self.jobs.values():
            yield dict(
                basename=job.name, task_dep=job.needs,
                uptodate=[(self._skips, [job])],
                actions=[(self._work, [job])], io=dict(capture=False))

    def _skips(self, job: Job) -> bool:
        """Whether it is done; asked in the order of preference."""
        with self._turn:
            if not self._is_done(job):
                self._ready.add(job.name)
                return False
            return True

    def _is_done(self, job: Job) -> bool:
        if (text := job.done()) is None:
            return False
        self.results[job.name] = text
        self.reused.append(job.name)
        return True

    def _work(self, job: Job) -> bool:
        """Wait for a free place and the lock, and run; in a thread."""
        with contextlib.ExitStack() as stack:
            with self._turn:
                if (lock := self._wait(job)) is None:
                    return False
                stack.enter_context(lock)
                # Another runner may have finished it meanwhile.
                if self._is_done(job):
                    return True
                self._begin(job, lock)
                process, start = self._running[job.name]
            # wait4 and not Popen.wait: it also says what was used.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            with self._turn:
                try:
                    return self._end(job, process.returncode,
                                     time.monotonic() - start,
                                     usage.ru_utime + usage.ru_stime)
                finally:
                    del self._running[job.name]
                    self._turn.notify_all()

    def _wait(self, job: Job) -> IO | None:
        """The lock of a job whose turn it is; ``None``: all stop."""
        told = False
        while not self._stopping:
            first = next(n for n in self.jobs if n in self._ready)
            if len(self._running) >= self.side_by_side or first != job.name:
                self._turn.wait()
                continue
            self._ready.discard(job.name)
            self._turn.notify_all()
            job.folder.mkdir(parents=True, exist_ok=True)
            lock = (job.folder / LOCK).open('w')
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                lock.close()
            if not told:
                told = True
                self._tell(job, f'another process runs it ({job.folder}); '
                           'waiting for that')
            self._turn.wait(_POLL_SECONDS)
            self._ready.add(job.name)
        return None

    def _begin(self, job: Job, lock: IO) -> None:
        command, path = job.prepare(), job.folder / LOG
        with path.open('ab') as log:
            log.write(f'$ {shlex.join(command)}\n'.encode())
            log.flush()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=self._environment,
                pass_fds=(lock.fileno(), ), start_new_session=True)
        self._running[job.name] = process, time.monotonic()
        resumed = ', resumed' if '--resume' in command else ''
        expected = '' if job.expected is None else \
            f', expected {clock(job.expected)}'
        self._tell(job, f'started{resumed}{expected}; log: {path}')

    def _end(self, job: Job, code: int, seconds: float, cpu: float) -> bool:
        """Collect what a process has left; whether it did its work."""
        whole = code == 0 and not self._stopping
        try:
            text = job.ended(seconds, cpu, self.threads, whole)
        except FileNotFoundError as error:
            whole, text = False, str(error)
        if whole:
            self.results[job.name] = text
            self._tell(job, f'{text} in {clock(seconds)}{self._rest()}')
        elif not self._stopping:
            self.failed[job.name] = text or f'exit code {code}'
            self._stopping = not self.keep_going
            log = job.folder / LOG
            self._tell(job, '\n'.join([
                f'FAILED after {clock(seconds)}, {self.failed[job.name]}; '
                f'the end of {log}:', *tail(log)]))
        return whole

    def _on_failure(self, task: Any, fail: Any) -> None:
        """doit's word, in the main thread."""
        job = self.jobs[task.name]
        broken = [name for name in job.needs if name in self.failed]
        if broken:
            self.failed[job.name] = f'needs {broken[0]}, which failed'
            self._tell(job, f'not run, it {self.failed[job.name]}')
        elif job.name not in self.failed and not self._stopping:
            self.failed[job.name] = 'a fault in its code'
            self._tell(job, fail.get_msg())
        if not self.keep_going:
            raise _Stopped

    def _tell(self, job: Job, text: str) -> None:
        number = list(self.jobs).index(job.name) + 1
        with self._turn:
            self.say(f'[{number}/{len(self.jobs)}] {job.name}: {text}')

    def _rest(self) -> str:
        left = [job for name, job in self.jobs.items()
                if name not in self.results and name not in self.failed]
        if not left:
            return ''
        seconds = total_expected(left, self.side_by_side)
        about = '' if seconds is None else f', about {clock(seconds)}'
        return f'; {len(left)} left{about}'

    def _status_line(self) -> Live:
        """Show the running jobs on a terminal's last line."""
        def line() -> Text:
            now = time.monotonic()
            parts = [f'{name} {self.jobs[name].progress()} '
                     f'{clock(now - start)}'
                     for name, (_, start) in list(self._running.items())]
            return Text(
                f'[{clock(now - self._start)}, {len(self.results)} of '
                f'{len(self.jobs)} done] ' + ' | '.join(parts),
                no_wrap=True, overflow='ellipsis')

        return Live(
            get_renderable=line, refresh_per_second=2, transient=True,
            console=Console(force_terminal=sys.stdout.isatty()))

    def _stop(self) -> None:
        """End what still runs; its last checkpoint is there to go on from."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
        number, deadline = signal.SIGTERM, time.monotonic() + 10
        while self._running:
            for process, _ in list(self._running.values()):
                # Also its data loaders.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            time.sleep(.05)
            if time.monotonic() > deadline:
                number = signal.SIGKILL


@contextlib.contextmanager
def _signals(handler: Callable) -> Iterator[None]:
    """Another answer to Ctrl-C and SIGTERM for a while."""
    before = {number: signal.signal(number, handler)
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted


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
    with contextlib.suppress(OSError):
        text = path.read_text(errors='replace')
        return [f'  | {line}' for line in text.splitlines()[-lines:]]
    return []
