"""Runs the command-line tools on the toy world."""

import itertools
import runpy
import sys
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[1]


_runs = itertools.count()


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
