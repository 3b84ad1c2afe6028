"""Outputs and trainings for the tests of stored teachers."""

import torch

from mmkd_rl.options import ConfigError
from mmkd_rl.records import Output
from mmkd_rl.teachers.stored.rows import RowFormat
from tests.toy import distiller, toy_runner, toy_teachers

# MMEngine raises a TypeError in place of one in a hook.
REFUSAL = (ConfigError, TypeError)


def output(size=6, classes=100, side=4, seed=0, spread=3.):
    torch.manual_seed(seed)
    return Output((torch.randn(size, 8, side, side).relu(), ),
                  (spread * torch.randn(size, classes), ))


def round_trip(out, kind='float16', scores='uint8', top_k=None, labels=None):
    form = RowFormat.of(out, kind, scores, top_k)
    rows = form.encode(out, labels)
    assert rows.dtype == form.dtype
    return form.decode(rows, torch.device('cpu')), form


def run(tmp_path, name, executor, views=2, epochs=4, jitter=.5, hooks=(),
        sampler=None, workers=0, config=None, **options):
    """A training of which teachers' calls are counted."""
    teachers = [dict(t, **({'executor': executor} if executor else {}))
                for t in toy_teachers(tmp_path)]
    data = dict(type='mmkd_rl.WorldDataset', size=32, jitter=jitter)
    runner = toy_runner(
        tmp_path / name, distiller(teachers, **options), epochs=epochs,
        hooks=[dict(type='StoredOutputsHook'), *hooks],
        randomness=dict(seed=0),
        **(config or {}),
        train_dataloader=dict(
            batch_size=8, num_workers=workers,
            sampler=sampler or dict(type='mmkd_rl.ViewSampler'),
            dataset=dict(type='mmkd_rl.RepeatableViews', views=views,
                         dataset=data)))
    runner.train()
    return runner


def stored(tmp_path, **options):
    return dict(type='stored', folder=str(tmp_path / 'store'), **options)


def counts(runner):
    return [(e.read_count, e.run_count)
            for e in runner.model.distillation.teachers.stored]
