"""Trainings with stored teachers equal those with live ones."""

import json

import pytest
import torch
from mmpretrain.structures import DataSample

from mmkd_rl.options import ConfigError
from mmkd_rl.teachers import StoredViews
from tests.test_teachers.test_stored.common import REFUSAL, counts, run, stored
from tests.toy import distiller, toy_runner, toy_teachers


def test_a_full_store_gives_the_same_run(tmp_path):
    """Bit for bit, whether it was filled before, in other epochs, or in the
    same run; and teachers are not run again."""
    first = run(tmp_path, 'a', stored(tmp_path))
    again = run(tmp_path, 'b', stored(tmp_path))
    assert counts(first) == [(64, 64)] * 2  # two views, four epochs
    assert counts(again) == [(128, 0)] * 2
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize('workers', [0, 2])
def test_live_and_stored_teachers_agree(tmp_path, workers):
    """Stored in full precision; to rounding in half precision and codes."""
    live = run(tmp_path, 'a', None, workers=workers)
    own = run(tmp_path, 'b', stored(tmp_path, features='float32',
                                    scores='float32'), workers=workers)
    for name, value in live.model.state_dict().items():
        torch.testing.assert_close(value, own.model.state_dict()[name],
                                   rtol=1e-5, atol=1e-6)
    few = run(tmp_path, 'c', dict(type='stored', folder=str(
        tmp_path / 'few')), workers=workers)
    for name, value in live.model.state_dict().items():
        torch.testing.assert_close(value, few.model.state_dict()[name],
                                   rtol=.02, atol=3e-3)


def test_a_resumed_run_goes_on_with_its_views(tmp_path):
    hooks = [dict(type='RandomStateHook')]
    straight = run(tmp_path, 'a', stored(tmp_path), views=3, hooks=hooks)
    run(tmp_path, 'b', stored(tmp_path), views=3, epochs=2, hooks=hooks)
    resumed = run(tmp_path, 'b', stored(tmp_path), views=3, hooks=hooks,
                  config=dict(resume=True, load_from=str(
                      tmp_path / 'b/epoch_2.pth')))
    assert resumed.epoch == 4
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_training_that_counts_iterations(tmp_path):
    runner = run(tmp_path, 'a', stored(tmp_path), config=dict(
        train_cfg=dict(by_epoch=False, max_iters=12),
        default_hooks=dict(checkpoint=dict(
            type='CheckpointHook', by_epoch=False, interval=12))),
        sampler=dict(type='mmkd_rl.ViewSampler', sampler=dict(
            type='InfiniteSampler', shuffle=True)))
    assert counts(runner) == [(32, 64)] * 2


@pytest.mark.parametrize('strategy', ['MTKDRL', 'CAMKD', 'AEKD', 'MMKD'])
def test_strategies(tmp_path, strategy):
    hooks = [dict(type='LearnerHook')] if strategy in ('MTKDRL', 'MMKD') \
        else []
    runner = run(tmp_path, 'a', stored(tmp_path), hooks=hooks,
                 weighting=dict(type=strategy))
    assert counts(runner) == [(64, 64)] * 2


def test_logits_alone_need_no_maps(tmp_path):
    runner = run(tmp_path, 'a', stored(tmp_path), feature_loss=None)
    meta = json.loads((tmp_path / 'store/t0/meta.json').read_text())
    assert meta['features'] == 'pooled'
    with pytest.raises(REFUSAL, match="features.*'pooled', and a term"):
        run(tmp_path, 'b', stored(tmp_path, features='pooled'))
    # By itself it takes a store of maps, which is no other teacher's.
    with pytest.raises(ConfigError, match="'pooled', and now 'float16'"):
        run(tmp_path, 'b', stored(tmp_path))
    assert counts(runner) == [(64, 64)] * 2


def test_maps_serve_logits_alone(tmp_path):
    run(tmp_path, 'a', stored(tmp_path))
    assert counts(run(tmp_path, 'b', stored(tmp_path), feature_loss=None)) \
        == [(128, 0)] * 2


def test_one_store_for_students_of_any_precision(tmp_path):
    """Teachers run in float32, whatever the student's precision."""
    run(tmp_path, 'a', stored(tmp_path))
    low = run(tmp_path, 'b', stored(tmp_path), config=dict(
        optim_wrapper=dict(type='BFloat16OptimWrapper', precision='bfloat16',
                           optimizer=dict(type='SGD', lr=.05))))
    assert counts(low) == [(128, 0)] * 2


def test_a_class_map(tmp_path):
    """The label's score is that of the teacher's own class."""
    teachers = [dict(t, class_map=[1, 2, 3, 4, 0], executor=stored(tmp_path))
                for t in toy_teachers(tmp_path)]
    runner = toy_runner(tmp_path / 'run', distiller(teachers))
    pool = runner.model.distillation.teachers
    pool.begin(StoredViews(4, 1, {}))
    executor, = pool.stored[:1]
    samples = [DataSample().set_gt_label(i) for i in (0, 4)]
    batch = type('B', (), dict(samples=samples, images=torch.zeros(2)))
    assert executor._labels(batch).tolist() == [1, 0]
