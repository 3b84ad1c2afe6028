"""Jobs of a few lines of Python: order, locks, failures, interruption."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from task_runner import (
    LOCK,
    LOG,
    Interrupted,
    Job,
    Runner,
    clock,
    total_expected,
)


@dataclass
class Script(Job):
    """Job that runs a few lines of Python; done if the file ``out`` exists."""
    code: str = 'open("out", "w").write("x")'

    def done(self):
        path = self.folder / 'out'
        return path.read_text() if path.is_file() else None

    def prepare(self):
        lines = f'import os, sys, time; os.chdir({str(self.folder)!r})\n'
        return [sys.executable, '-S', '-c', lines + self.code]

    def ended(self, seconds, cpu_seconds, threads, whole):
        with (self.folder / 'times').open('a') as file:
            file.write(f'{seconds} {cpu_seconds} {threads} {whole}\n')
        if whole and self.done() is None:
            raise FileNotFoundError('no out')
        return self.done() or ''


def script(root, name, code=None, needs=()):
    job = Script(name, root / name, list(needs), 1.)
    if code is not None:
        job.code = code
    return job


def test_order_follows_the_needs(tmp_path):
    """b is listed first but needs a; each job writes which outputs exist."""
    jobs = [
        script(tmp_path, 'b', 'open("out", "w").write('
               'str(os.path.exists("../a/out")))', ['a']),
        script(tmp_path, 'a'),
    ]
    runner = Runner(jobs, 2, 1, lambda line: None)
    runner.run()
    assert runner.results == {'a': 'x', 'b': 'True'}


def test_threads_and_times_are_noted(tmp_path):
    job = script(
        tmp_path, 'a', 'sum(range(4_000_000)); open("out", "w").write('
        'os.environ["OMP_NUM_THREADS"])')
    Runner([job], 1, 3, lambda line: None).run()
    assert job.done() == '3'
    seconds, cpu, threads, whole = (job.folder / 'times').read_text().split()
    assert float(cpu) > 0.005 and float(seconds) > 0
    assert (threads, whole) == ('3', 'True')


def test_what_is_done_is_skipped(tmp_path):
    job = script(tmp_path, 'a')
    Runner([job], say=lambda line: None).run()
    written = (job.folder / 'out').stat().st_mtime_ns
    again = Runner([job], say=lambda line: None)
    again.run()
    assert again.reused == ['a']
    assert (job.folder / 'out').stat().st_mtime_ns == written


def test_what_a_done_job_needs_may_be_left_out(tmp_path):
    """A plan leaves out the teachers of students that are done; a job that is
    not done needs them."""
    done, new = script(tmp_path, 'a', needs=['teacher']), script(tmp_path, 'b')
    done.folder.mkdir()
    (done.folder / 'out').write_text('x')
    runner = Runner([done, new], say=lambda line: None)
    runner.run()
    assert runner.results == dict(a='x', b='x') and runner.reused == ['a']
    (done.folder / 'out').unlink()
    with pytest.raises((KeyError, RuntimeError)):
        Runner([done], say=lambda line: None).run()


@pytest.mark.parametrize('code, reason', [
    ('print("no luck"); sys.exit(3)', 'exit code 3'),
    ('print("no luck")', 'no out'),
])
def test_failure_stops_only_what_needs_it(tmp_path, code, reason):
    said = []
    runner = Runner([
        script(tmp_path, 'a', code),
        script(tmp_path, 'b', needs=['a']),
        script(tmp_path, 'c'),
    ], say=said.append)
    runner.run()
    assert runner.failed['a'] == reason
    assert 'needs a' in runner.failed['b']
    assert runner.results == {'c': 'x'}
    assert 'no luck' in ''.join(said)  # the end of the log


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interruption_ends_the_processes(tmp_path, number):
    """Children of the process end as well, e.g. workers of a data loader."""
    code = ('import subprocess\n'
            'p = subprocess.Popen([sys.executable, "-S", "-c", '
            '"import time; time.sleep(60)"])\n'
            'open("pid.tmp", "w").write(str(p.pid))\n'
            'os.rename("pid.tmp", "pid")\n'
            'time.sleep(60)')
    job = script(tmp_path, 'a', code)

    def interrupt():
        while not (job.folder / 'pid').is_file():
            time.sleep(.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=interrupt, daemon=True).start()
    start = time.monotonic()
    with pytest.raises(Interrupted):
        Runner([job], say=lambda line: None).run()
    assert time.monotonic() - start < 30
    assert (job.folder / 'times').read_text().split()[-1] == 'False'
    assert signal.getsignal(number) is before
    pid = int((job.folder / 'pid').read_text())
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(.02)
    assert not _alive(pid)


def _alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def test_waits_for_another_runner(tmp_path):
    """Another process holds the lock, makes the output and ends."""
    job = script(tmp_path, 'a', 'open("out", "w").write("ours")')
    job.folder.mkdir()
    with (job.folder / LOCK).open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = subprocess.Popen(
            [sys.executable, '-S', '-c', 'import time; time.sleep(.6); '
             f'open({str(job.folder / "out")!r}, "w").write("theirs")'],
            pass_fds=(lock.fileno(), ))
    said = []
    runner = Runner([job], say=said.append)
    runner.run()
    other.wait()
    assert runner.results == {'a': 'theirs'}
    assert 'another process' in said[0] and len(said) == 1


def test_the_first_in_order_starts_first(tmp_path):
    said = []
    Runner([script(tmp_path, name) for name in 'abcdefgh'],
           say=said.append).run()
    assert [line.split()[1][0] for line in said if 'started' in line] == \
        list('abcdefgh')


def test_who_waits_leaves_its_place_to_others(tmp_path):
    """Job b runs while a waits; the lock of a is free only when b is done."""
    a, b = script(tmp_path, 'a'), script(tmp_path, 'b')
    a.folder.mkdir()
    with (a.folder / LOCK).open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def say(line):
            if 'b: x in' in line:
                fcntl.flock(lock, fcntl.LOCK_UN)

        runner = Runner([a, b], 1, say=say)
        runner.run()
    assert list(runner.results) == ['b', 'a'] and not runner.reused


def test_a_process_outlives_its_killed_runner_with_the_lock(tmp_path):
    """The training of the orphaned process is not started a second time."""
    code = ('open("pids", "a").write("x"); time.sleep(1.5)\n'
            'open("out", "w").write("the orphan")')
    tests = Path(__file__).parent
    first = subprocess.Popen([
        sys.executable, '-c', f'import sys; sys.path[:0] = {sys.path!r}\n'
        f'sys.path.insert(0, {str(tests)!r})\n'
        'from pathlib import Path\n'
        'from test_task_runner import Runner, script\n'
        f'Runner([script(Path({str(tmp_path)!r}), "a", {code!r})]).run()'])
    pids = tmp_path / 'a' / 'pids'
    while not pids.is_file():
        assert first.poll() is None
        time.sleep(.02)
    first.kill()
    first.wait()
    said = []
    runner = Runner([script(tmp_path, 'a', code)], say=said.append)
    runner.run()
    assert runner.results == {'a': 'the orphan'}
    assert pids.read_text() == 'x' and 'another process' in said[0]


def test_a_fault_in_a_job_keeps_its_traceback(tmp_path):
    """The job counts as failed, and other jobs are run."""
    said = []
    broken, other = script(tmp_path, 'a'), script(tmp_path, 'b')
    broken.prepare = lambda: [][0]
    runner = Runner([broken, other], say=said.append)
    runner.run()
    assert runner.results == {'b': 'x'} and list(runner.failed) == ['a']
    assert 'IndexError' in ''.join(said) and 'Traceback' in ''.join(said)


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, 'doit.doit_cmd', None)
    with pytest.raises(SystemExit, match=r'doit.*mmkd-rl\[tools\]'):
        Runner([script(tmp_path, 'a')]).run()


def test_nothing_to_do():
    Runner([]).run()


def test_progress_is_read_from_the_log(tmp_path):
    job = Script('a', tmp_path, epochs=4)
    assert job.progress() == 'starts'
    log = tmp_path / LOG
    log.write_text('x - Epoch(train)   [3][ 75/150]  lr: 1\n')
    assert job.progress().strip() == '62%'
    log.write_text('x - Iter(train) [ 50/200]  lr: 1\n')
    assert job.progress().strip() == '25%'


def test_clock_and_total():
    assert clock(None) == 'unknown'
    assert clock(59.6) == '1:00' and clock(3725) == '1:02:05'
    jobs = [Script('a', None, [], 10.), Script('b', None, [], 20.)]
    assert total_expected(jobs, 2) == 15.
    assert total_expected([*jobs, Script('c', None)], 2) is None
