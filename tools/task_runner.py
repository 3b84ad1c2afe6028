"""Runs jobs as subprocesses, several at a time, in the order of their needs.

doit orders the jobs, skips those that are done and those that need a failed
job. This module adds a log, a process group and a lock for each job.

The process of a job holds the lock on the job's folder (an open file that it
inherits). A second runner in the same folder therefore waits instead of
training the same model twice, also if the first runner was killed and its
process still trains. Each job has a session of its own, so that Ctrl-C
reaches only the runner, which then stops the jobs.
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
    """Ctrl-C or SIGTERM; the runner has stopped its jobs."""


class _Stopped(KeyboardInterrupt):
    """A job has failed, and all other jobs are to be stopped.

    Like :class:`Interrupted` not an ``Exception``, because doit prints those.
    """


@dataclass
class Job(ABC):
    """A command that runs in a folder of its own.

    Attributes:
        name: Name for the user; unique, without ``=`` and ``*``.
        folder: Folder of the job, with its log and lock.
        needs: Names of the jobs that must be done before this one. The runner
            may lack those of a job that is done.
        expected: Expected time in seconds; ``None`` if unknown.
        epochs: Number of epochs of a training, to show its progress.
    """
    name: str
    folder: Path
    needs: list[str] = field(default_factory=list)
    expected: float | None = None
    epochs: int = 1

    @abstractmethod
    def done(self) -> str | None:
        """Result in a few words; ``None`` if the job is not done. Called when
        all jobs that this one needs are done."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Write the files that the command needs into the folder, which
        exists.

        Returns:
            The command as a list of arguments.
        """

    @abstractmethod
    def ended(self, seconds: float, cpu_seconds: float, threads: int,
              whole: bool) -> str:
        """Record the time of an attempt, and collect the result.

        Args:
            seconds: Wall time of the attempt.
            cpu_seconds: Processor time of the attempt.
            threads: Number of threads of the process; 0 for no limit.
            whole: Whether the command ended by itself with exit code 0.
                Otherwise it was stopped or failed, and there is no result.

        Returns:
            The result in a few words.

        Raises:
            FileNotFoundError: The output is missing.
        """

    def progress(self) -> str:
        """Progress of a training according to its log, e.g. ``' 40%'``."""
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
    """Runs the jobs that are not done.

    Args:
        jobs: Jobs; of those that may start, the first one does.
        side_by_side: Number of processes at the same time.
        threads: Number of threads of each process; 0 for no limit.
        say: Function that prints a line for the user.
        keep_going: After a failed job, run all jobs that do not need it;
            otherwise stop all jobs.
        environment: Additional environment variables of all processes.

    Attributes:
        results: Results in words, by the names of jobs that are done.
        reused: Names of jobs that were done before.
        failed: Reasons, by the names of jobs that failed or could not run.
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
        # Names of jobs whose needs are done; the first in order starts next.
        self._ready: set[str] = set()
        # One thread at a time calls methods of jobs or prints lines.
        self._turn = threading.Condition()
        self._stopping = False

    def run(self) -> None:
        """Run until all jobs are done or have failed.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; all processes have ended.
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
            # Jobs themselves know whether they are done: doit writes its own
            # record only at the end, so that a kill would lose it.
            backend='sqlite3', dep_file=':memory:', reporter=reporter,
            verbosity=0, par_type='thread',
            # One thread for each job: a job that waits for the process of
            # another runner does not block other jobs.
            num_process=len(self.jobs))
        config['continue'] = True
        loader = need('doit.cmd_base').ModuleTaskLoader(
            dict(task_jobs=self._tasks, DOIT_CONFIG=config))
        # The empty tuple: settings files in the current folder are not read.
        if self.jobs and doit.DoitMain(loader, ()).run(['run']) == 3:
            raise RuntimeError('doit cannot run the jobs; the reason stands '
                               'above')

    def _tasks(self) -> Iterator[dict[str, Any]]:
        for job in self.jobs.values():
            needs = [name for name in job.needs if name in self.jobs]
            if len(needs) < len(job.needs) and job.done() is None:
                raise KeyError(f'{job.name!r} needs {job.needs}, and the jobs '
                               f'are {list(self.jobs)}')
            yield dict(
                basename=job.name, task_dep=needs,
                uptodate=[(self._skips, [job])],
                actions=[(self._work, [job])], io=dict(capture=False))

    def _skips(self, job: Job) -> bool:
        """Whether the job is done; called by doit in the order of the jobs."""
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
        """Wait for the job's turn and its lock, and run it; in a thread.

        Returns:
            Whether the job is done.
        """
        with contextlib.ExitStack() as stack:
            with self._turn:
                if (lock := self._wait(job)) is None:
                    return False
                stack.enter_context(lock)
                # Another runner may have finished the job meanwhile.
                if self._is_done(job):
                    return True
                self._begin(job, lock)
                process, start = self._running[job.name]
            # wait4, as Popen.wait does not return the processor time.
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
        """Wait until the job may start, and lock its folder.

        Returns:
            The lock; ``None`` if the runner stops.
        """
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
        """Collect the result of a process that has ended.

        Returns:
            Whether the job is done.
        """
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
        """Note a failed task; called by doit in the main thread."""
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
        """Show the running jobs on the last line of the terminal."""
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
        """Stop the running processes; trainings can be resumed from their
        last checkpoints."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
        number, deadline = signal.SIGTERM, time.monotonic() + 10
        while self._running:
            for process, _ in list(self._running.values()):
                # The process group, which includes data loader workers.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            time.sleep(.05)
            if time.monotonic() > deadline:
                number = signal.SIGKILL


@contextlib.contextmanager
def _signals(handler: Callable) -> Iterator[None]:
    """Replace the handlers of Ctrl-C and SIGTERM within the context."""
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
    """Expected seconds of all jobs; ``None`` if that of one is unknown."""
    seconds = [job.expected for job in jobs]
    if any(s is None for s in seconds):
        return None
    return sum(s for s in seconds if s is not None) / side_by_side


def clock(seconds: float | None) -> str:
    """Format seconds as m:ss or h:mm:ss."""
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
