"""Stores against kills, full disks and other processes."""

import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from mmkd_rl.options import ConfigError
from mmkd_rl.teachers.stored.store import Store

DTYPE = np.dtype([('a', 'f4', 3)])


def rows_of(numbers):
    rows = np.zeros(len(numbers), DTYPE)
    rows['a'] = np.asarray(numbers)[:, None]
    return rows


def fill(store, numbers):
    numbers = np.asarray(numbers)
    store.write(numbers, rows_of(numbers), numbers.astype('u4') + 1)


def test_rows_come_back(tmp_path):
    store = Store(str(tmp_path / 's'), {'of': 1}, DTYPE, 5, 2)
    assert not store.known(np.arange(10)).any()
    fill(store, [1, 7])
    for again in (store, Store(str(tmp_path / 's'), {'of': 1}, DTYPE, 5, 2)):
        assert again.known(np.array([0, 1, 7])).tolist() == [0, 2, 8]
        assert np.array_equal(again.read(np.array([7, 1])), rows_of([7, 1]))
        assert again.absent(10).tolist() == [0, 2, 3, 4, 5, 6, 8, 9]
        store.flush()


def test_more_views_and_fewer(tmp_path):
    folder = str(tmp_path / 's')
    first = Store(folder, {}, DTYPE, 5, 1)
    fill(first, [4])
    first.flush()
    more = Store(folder, {}, DTYPE, 5, 3)
    assert len(more) == 15
    assert more.known(np.array([4, 9])).tolist() == [5, 0]
    assert len(Store(folder, {}, DTYPE, 5, 2)) == 15


def test_a_store_of_something_else(tmp_path):
    folder = str(tmp_path / 's')
    Store(folder, dict(weights='a', seed=0), DTYPE, 5, 1)
    with pytest.raises(ConfigError, match="weights 'a', and now 'b'.*Remove"):
        Store(folder, dict(weights='b', seed=0), DTYPE, 5, 1)
    (tmp_path / 's/meta.json').write_text('{')
    with pytest.raises(ConfigError, match='cannot be read'):
        Store(folder, dict(weights='a', seed=0), DTYPE, 5, 1)


def test_rows_of_what_is_not_known_are_forgotten(tmp_path):
    store = Store(str(tmp_path), {}, DTYPE, 5, 1)
    fill(store, [1])
    store.flush()
    (tmp_path / 'meta.json').unlink()
    assert Store(str(tmp_path), {}, DTYPE, 5, 1).count() == 0


def test_a_budget(tmp_path):
    assert Store(str(tmp_path / 'a'), {}, DTYPE, 10, 1, budget=160)
    with pytest.raises(ConfigError, match='budget.*159.*10 images with 1 view'
                                          '.*160'):
        Store(str(tmp_path / 'b'), {}, DTYPE, 10, 1, budget=159)
    assert not (tmp_path / 'b').exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='cannot be written'):
        Store(str(tmp_path / 'file' / 's'), {}, DTYPE, 5, 1)


def child(code, **kwargs):
    return subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(code)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


STORE = ('from tests.test_teachers.test_stored.test_store import DTYPE, '
         'Store, fill')


def test_a_file_system_without_space(tmp_path):
    """In a process that may write no file larger than 1 MB, which is noticed
    when the store is made, before anything is trained."""
    run = child(f"""
        import resource
        {STORE}
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        try:
            Store({str(tmp_path / 's')!r}, {{}}, DTYPE, 10**6, 1)
        except Exception as error:
            print(type(error).__name__, error)
    """)
    out, err = run.communicate(timeout=120)
    assert 'ConfigError folder: the store' in out, err
    assert 'needs 16.0MB' in out and run.returncode == 0


def test_a_process_that_is_killed(tmp_path):
    """Whatever is there afterwards is right."""
    folder = str(tmp_path / 's')
    run = child(f"""
        {STORE}
        store = Store({folder!r}, {{}}, DTYPE, 20000, 1)
        for first in range(0, 20000, 10):
            fill(store, range(first, first + 10))
            print(first, flush=True)
        import time; time.sleep(60)
    """)
    for line in run.stdout:
        if line.strip().isdigit() and int(line) > 12000:
            break
    run.send_signal(signal.SIGKILL)
    run.wait()
    store = Store(folder, {}, DTYPE, 20000, 1)
    known = np.flatnonzero(store.known(np.arange(20000)))
    assert 8000 < len(known) < 20000
    assert np.array_equal(store.read(known), rows_of(known))
    fill(store, store.absent(20000))
    assert store.count() == 20000
    assert np.array_equal(store.read(np.arange(20000)),
                          rows_of(np.arange(20000)))


def test_two_processes_fill_one_store(tmp_path):
    """They make it at once, and write some of the same rows."""
    folder = str(tmp_path / 's')
    begin = time.time() + 12
    runs = [child(f"""
        import time
        {STORE}
        time.sleep(max(0, {begin} - time.time()))
        store = Store({folder!r}, {{}}, DTYPE, 30000, 1)
        for first in range({start}, {start} + 20000, 100):
            fill(store, range(first, first + 100))
    """) for start in (0, 10000)]
    for run in runs:
        assert run.wait(120) == 0, run.stderr.read()
    store = Store(folder, {}, DTYPE, 30000, 1)
    assert store.count() == 30000
    assert np.array_equal(store.read(np.arange(30000)),
                          rows_of(np.arange(30000)))
