"""A killed run resumes bit for bit."""

import json
import shutil

import pytest
import torch

from tests.toy import distiller, toy_runner, toy_teachers

HOOKS: list = [
    dict(type='AgentAlternationHook'),
    # an interval that does not divide the epoch's five iterations
    dict(type='WeightVisualizationHook', interval=3),
    dict(type='RandomStateHook'),
    dict(type='TeacherCheckHook', interval=2),
    dict(type='EMAHook', momentum=.1),
    dict(type='StudentExportHook'),
]


class Killed(Exception):
    pass


def kill(runner):
    raise Killed


def run(work_dir, teachers, hooks=HOOKS, reward_time='before', **kwargs):
    return toy_runner(
        work_dir,
        distiller(
            teachers,
            weighting=dict(
                type='MTKDRL',
                reward_time=reward_time,
                agent=dict(learnable_balance=True))),
        hooks=hooks,
        epochs=4,
        size=40,
        jitter=.3,
        validate=True,
        **kwargs)


def same(a, b, path=''):
    """Compare nested dicts and lists of tensors and plain values bit for
    bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for k in a:
            same(a[k], b[k], f'{path}/{k}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f'{path}/{i}')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def learner_of(model):
    """Learner of the strategy."""
    return model.distillation.weighting.learner


def compare(folders, runners):
    same(*(r.model.state_dict() for r in runners))
    same(*(learner_of(r.model).state_dict() for r in runners))
    assert learner_of(runners[0].model).updates == 4
    same(*(r.optim_wrapper.state_dict() for r in runners))
    same(*(json.loads((f / 'teacher_weights.json').read_text())
           for f in folders))
    same(*(torch.load(f / 'student.pth') for f in folders))
    same(*(torch.load(f / 'epoch_4.pth', weights_only=False)['state_dict']
           for f in folders))


def test_killed_in_the_third_epoch_and_resumed(tmp_path):
    teachers = toy_teachers(tmp_path)
    seed = dict(randomness=dict(seed=3))
    whole = run(tmp_path / 'a', teachers, **seed)
    whole.train()
    with pytest.raises(Killed):
        run(tmp_path / 'b', teachers, call=(kill, 12), **seed).train()
    assert not (tmp_path / 'b' / 'student.pth').exists()
    torch.rand(17)  # another process has another state
    resumed = run(tmp_path / 'b', teachers, resume=True, **seed)
    resumed.train()
    compare((tmp_path / 'a', tmp_path / 'b'), (whole, resumed))


@pytest.mark.parametrize('reward_time', ['before', 'after'])
def test_resumed_without_a_seed(tmp_path, reward_time):
    """Every start draws a new seed; a resumed run uses the checkpoint's."""
    teachers = toy_teachers(tmp_path)
    whole = run(tmp_path / 'a', teachers, reward_time=reward_time)
    whole.train()
    (tmp_path / 'b').mkdir()
    shutil.copy(tmp_path / 'a' / 'epoch_2.pth', tmp_path / 'b')
    resumed = run(
        tmp_path / 'b', teachers, resume=True, reward_time=reward_time,
        load_from=str(tmp_path / 'b' / 'epoch_2.pth'))
    resumed.train()
    compare((tmp_path / 'a', tmp_path / 'b'), (whole, resumed))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Folder of a short run, with or without agent in the checkpoint."""
    folder = tmp_path_factory.mktemp('finished')
    teachers = toy_teachers(folder)
    runner = toy_runner(
        folder, distiller(teachers, weighting=dict(type='MTKDRL')),
        hooks=HOOKS[:1])
    runner.train()
    content = torch.load(folder / 'epoch_2.pth', weights_only=False)
    del content['mmkd_rl_agent']
    torch.save(content, folder / 'no_agent.pth')
    return folder, teachers, runner


def test_resuming_from_a_checkpoint_without_agent(tmp_path, finished):
    folder, teachers, _ = finished
    runner = toy_runner(
        tmp_path, distiller(teachers, weighting=dict(type='MTKDRL')),
        hooks=HOOKS[:1], resume=True,
        load_from=str(folder / 'no_agent.pth'))
    with pytest.raises(ValueError, match="no 'mmkd_rl_agent'.*load_from "
                       'without --resume'):
        runner.train()


def test_resuming_with_other_teachers(tmp_path, finished):
    folder, teachers, _ = finished
    runner = toy_runner(
        tmp_path, distiller(
            teachers, weighting=dict(type='MTKDRL', state=['ce'])),
        hooks=HOOKS[:1], resume=True, load_from=str(folder / 'epoch_2.pth'))
    with pytest.raises(ValueError, match='agent does not fit this config'):
        runner.train()


@pytest.mark.parametrize('name', ['epoch_2.pth', 'no_agent.pth'])
def test_load_from_takes_the_weights_alone(tmp_path, finished, name):
    folder, teachers, before = finished
    runner = toy_runner(
        tmp_path, distiller(teachers, weighting=dict(type='MTKDRL')),
        hooks=HOOKS[:1], load_from=str(folder / name))
    runner.load_or_resume()
    same(runner.model.state_dict(), before.model.state_dict())
    learner = learner_of(runner.model)
    assert learner.updates == 0 and len(learner.history) == 0
    assert runner.epoch == 0


def test_a_run_that_counts_iterations_says_that_it_differs(
        tmp_path, monkeypatch):
    """Its checkpoints have no states of the random generators."""
    teachers, said = toy_teachers(tmp_path, count=2), []
    for resume in (False, True):
        runner = toy_runner(
            tmp_path / 'run', distiller(teachers), resume=resume,
            hooks=[dict(type='RandomStateHook')],
            train_cfg=dict(by_epoch=False, max_iters=6 if resume else 4),
            default_hooks=dict(checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=2)))
        monkeypatch.setattr(runner.logger, 'warning', said.append)
        runner.train()
        found = [text for text in said if 'random' in text]
        assert len(found) == resume
    assert 'because training counts iterations' in found[0]
