"""Runs the command-line tools on the toy world."""

import itertools
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[1]


_runs = itertools.count()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def two_processes(*args):
    """Run Python with the same arguments in two processes on the CPU, whose
    environment is that of torchrun; both must end well.

    Args:
        *args: Arguments of the interpreter, such as ``'-c', CODE, FOLDER``.
    """
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1',
               CUDA_VISIBLE_DEVICES='', MPLBACKEND='Agg',
               MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()),
               WORLD_SIZE='2')
    workers = [
        subprocess.Popen(
            [sys.executable, *map(str, args)], cwd=ROOT,
            env=dict(env, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for rank in range(2)]
    try:
        said = [worker.communicate(timeout=900)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, text in zip(workers, said):
        assert worker.returncode == 0, text[-3000:]


def in_process(monkeypatch, capfd, name, *args, options=()):
    """Run a tool in this process, which has imported everything already.

    Args:
        name: File name of the tool.
        *args: Arguments of the command.
        options: ``KEY=VALUE`` for ``--cfg-options``.

    Returns:
        Exit code, and everything that was printed.
    """
    monkeypatch.setattr(sys, 'argv', [
        name, *map(str, args), '--cfg-options',
        f'experiment_name=itself{next(_runs)}', *options])
    try:
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        code = 0
    except SystemExit as end:
        code = end.code
    return code, ''.join(capfd.readouterr())


def config(folder, name, model, **kwargs):
    """A config file with the toy world, for the tools."""
    loader = dict(
        batch_size=8, num_workers=0,
        dataset=dict(type='mmkd_rl.WorldDataset', size=64),
        sampler=dict(type='DefaultSampler', shuffle=False))
    cfg = Config({**dict(
        default_scope='mmkd_rl',
        custom_imports=dict(imports=['tests.toy']),
        model=model,
        train_dataloader=loader, val_dataloader=loader,
        test_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        val_cfg=dict(), test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-9)),
        val_evaluator=dict(type='mmpretrain.Accuracy'),
        test_evaluator=dict(type='mmpretrain.Accuracy')), **kwargs},
        format_python_code=False)
    path = Path(folder) / f'{name}.py'
    cfg.dump(path)
    return path
