"""How people call the tools: without an environment, from copied folders,
with names that have spaces."""

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import torch

from mmkd_rl.engine.resuming import forget_other_folders
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.checkpoint_io import latest_in
from mmkd_rl.utils.cli import EXIT_BAD_INPUT, clear_errors

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def clone(tmp_path):
    """The scripts, beside an environment whose python prints what it is
    given."""
    folder = tmp_path / 'a clone'
    (folder / 'tools').mkdir(parents=True)
    for script in TOOLS.glob('*.sh'):
        shutil.copy(script, folder / 'tools')
    python = folder / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$0" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    return folder


def call(folder, script, *args, **variables):
    done = subprocess.run(
        ['/bin/bash', str(folder / 'tools' / script), *args], text=True,
        env=dict(PATH='/usr/bin:/bin', **variables), capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize('script, args', [
    ('dist_train.sh', ['my config.py', '2', '--seed', '1']),
    ('dist_test.sh', ['my config.py', 'a file.pth', '2', '--out', 'a b.pkl']),
])
def test_scripts_without_an_environment(clone, script, args):
    words = call(clone, script, *args)
    assert os.path.samefile(words[0], clone / '.venv/bin/python')
    assert '--standalone' in words  # a free port
    for word in args:
        assert word in words or f'--nproc_per_node={word}' in words


def test_an_interpreter_and_a_port_of_the_users(clone, tmp_path):
    own = tmp_path / 'own'
    shutil.copy(clone / '.venv/bin/python', own)
    words = call(clone, 'dist_train.sh', 'c.py', '4', PYTHON=str(own),
                 PORT='1234')
    assert words[0] == str(own)
    assert '--master_port=1234' in words
    assert '--standalone' not in words


def run_of(folder):
    """A work directory as MMEngine leaves it."""
    folder.mkdir()
    for name in ('epoch_1.pth', 'epoch_2.pth', 'best_x_epoch_1.pth'):
        torch.save({}, folder / name)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    return folder


def test_a_work_directory_that_was_copied(tmp_path):
    first = run_of(tmp_path / 'first')
    assert latest_in(str(first)) == str(first / 'epoch_2.pth')
    second = tmp_path / 'second'
    shutil.copytree(first, second)
    assert latest_in(str(second)) == str(second / 'epoch_2.pth')
    shutil.rmtree(first)
    assert latest_in(str(second)) == str(second / 'epoch_2.pth')
    (second / 'epoch_2.pth').unlink()
    assert latest_in(str(second)) == str(first / 'epoch_2.pth')
    assert latest_in(str(tmp_path)) is None


def test_the_best_checkpoint_of_another_run_is_not_touched(tmp_path):
    """MMEngine deletes the file at the noted path when a better one comes."""
    first = run_of(tmp_path / 'first')
    notes = dict(best_ckpt=str(first / 'best_x_epoch_1.pth'), best_score=1.,
                 last_ckpt=str(first / 'epoch_2.pth'))

    def noted(work_dir):
        checkpoint = dict(message_hub=dict(runtime_info=dict(notes)))
        forget_other_folders(checkpoint, str(work_dir))
        return checkpoint['message_hub']['runtime_info']

    assert noted(first) == notes
    (tmp_path / 'new').mkdir()
    assert noted(tmp_path / 'new') == dict(best_score=1.)
    second = tmp_path / 'second'
    shutil.copytree(first, second)
    assert noted(second)['best_ckpt'] == str(second / 'best_x_epoch_1.pth')


def test_a_full_disk(tmp_path, capsys):
    """The file at the final name is the last whole one."""
    path = tmp_path / 'epoch_1.pth'
    checkpoint_io.save({'a': torch.ones(1)}, str(path))

    def write(temporary):
        Path(temporary).write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    with pytest.raises(SystemExit) as end, clear_errors():
        checkpoint_io.write_whole(str(path), write)
    assert end.value.code == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert 'epoch_1.pth' in said
    assert '--resume' in said
    assert checkpoint_io.load(str(path))['a'] == 1
    assert os.listdir(tmp_path) == ['epoch_1.pth']
