"""Schedule of the agent's updates, and bad input of the hooks."""

import os
from dataclasses import replace

import pytest
import torch

from mmkd_rl.engine.hooks import (
    AgentAlternationHook,
    StudentExportHook,
    TeacherCheckHook,
    WeightVisualizationHook,
)
from mmkd_rl.records import Truth
from mmkd_rl.tasks import ClassificationTask
from mmkd_rl.utils import cli
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner
from tests.test_engine.test_resume import learner_of
from tests.toy import classifier, distiller, toy_runner, toy_teachers


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path, count=2)


def mtkd_rl(teachers, **kwargs):
    return distiller(teachers, weighting=dict(type='MTKDRL', **kwargs))


@pytest.mark.parametrize('kwargs, updates', [
    (dict(), [4, 8, 12, 16]),
    (dict(warmup=2), [8, 12, 16]),
    (dict(interval=2), [4, 12]),
    (dict(by_epoch=False, warmup=3, interval=5), [3, 8, 13]),
])
def test_the_agent_is_trained_when_it_is_due(tmp_path, teachers, kwargs,
                                             updates, monkeypatch):
    """Four epochs of four iterations; each update uses the samples since the
    last one, and no others."""
    seen, update = [], None
    runner = toy_runner(
        tmp_path,
        mtkd_rl(teachers),
        hooks=[dict(type='AgentAlternationHook', **kwargs)],
        epochs=4)
    learner = learner_of(runner.model)
    update = learner.update

    def spy(student):
        # by epoch, the last iteration has been counted already
        done = runner.iter + (0 if kwargs.get('by_epoch', True) else 1)
        seen.append((done, len(learner.history)))
        return update(student)

    monkeypatch.setattr(learner, 'update', spy)
    runner.train()
    assert [iteration for iteration, _ in seen] == updates
    assert [n for _, n in seen] == [
        b - a for a, b in zip([0, *updates], updates)
    ]
    assert learner.updates == len(updates)
    assert len(learner.history) == 16 - updates[-1]


def test_reward_after_the_update_in_a_run(tmp_path, teachers, monkeypatch):
    """In Algorithm 2 the reward is computed after the student's update."""
    runner = toy_runner(
        tmp_path,
        mtkd_rl(teachers, reward_time='after'),
        hooks=[dict(type='AgentAlternationHook')],
        size=8)
    seen = []
    remember = AgentLearner.remember

    def spy(self, record, after=None, scale=None):
        seen.append(after.student.logits)
        images = runner.model.distillation.last_step.seen.batch.images
        with torch.no_grad():
            now = runner.model(images, mode='tensor')
        torch.testing.assert_close(after.student.logits[0], now)
        return remember(self, record, after, scale)

    monkeypatch.setattr(AgentLearner, 'remember', spy)
    runner.train()
    assert len(seen) == 2


@pytest.mark.parametrize('build, message', [
    (lambda: AgentAlternationHook(warmup=0), 'warmup.*>= 1, got 0'),
    (lambda: AgentAlternationHook(interval=-1), 'interval.*>= 1, got -1'),
    (lambda: AgentAlternationHook(interval=1.5), 'interval.*1.5'),
    (lambda: WeightVisualizationHook(interval=0), 'interval.*>= 1, got 0'),
    (lambda: TeacherCheckHook(interval=0), 'interval.*>= 1, got 0'),
    (lambda: StudentExportHook(to='onnx'), "to.*'mmpretrain'.*'onnx'"),
])
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('options, key', [
    (dict(history_bytes=3), 'history_bytes'),
    (dict(updater=dict(type='DDPG', replay_bytes=3)),
     'updater.replay_bytes')])
def test_an_options_key_is_whole_in_training_too(tmp_path, teachers, options,
                                                 key, capsys):
    """The size of a sample is known only in training."""
    runner = toy_runner(tmp_path, mtkd_rl(teachers, **options),
                        hooks=[dict(type='AgentAlternationHook')], epochs=2)
    # MMEngine raises another error from it; the tools handle both alike.
    with pytest.raises(SystemExit) as end, cli.clear_errors() as stage:
        stage.watch(runner)
        runner.train()
    assert end.value.code == 2
    assert f'ERROR: model.weighting.{key}: 3 is too small: one sample' in \
        capsys.readouterr().err


def test_an_agents_hook_without_agent(tmp_path, teachers):
    runner = toy_runner(
        tmp_path, distiller(teachers),
        hooks=[dict(type='AgentAlternationHook')])
    with pytest.raises(TypeError,
                       match='AverageWeighting, which has no agent'):
        runner.train()


@pytest.mark.parametrize('hook', [
    'AgentAlternationHook', 'WeightVisualizationHook', 'StudentExportHook',
    'TeacherCheckHook'
])
def test_hooks_without_distiller_complain_before_training(tmp_path, hook):
    steps = []
    runner = toy_runner(
        tmp_path,
        classifier(),
        hooks=[dict(type=f'mmkd_rl.{hook}')],
        call=(steps.append, 0),
        default_scope='mmpretrain')
    with pytest.raises(TypeError, match=f'{hook}, which needs a Multi'):
        runner.train()
    assert not steps


def test_marking_a_teacher_that_is_not_there(tmp_path, teachers):
    runner = toy_runner(
        tmp_path,
        distiller(teachers),
        hooks=[dict(type='WeightVisualizationHook', mark=dict(t9='x'))])
    with pytest.raises(ValueError, match=r"mark has \['t9'\].*'t0', 't1'"):
        runner.train()


def test_a_teacher_that_breaks_leaves_no_checkpoint(tmp_path, teachers):
    """The teacher's outputs are not finite from the second epoch on, long
    before the hook's next check."""

    def poison(runner):
        teachers = list(runner.model.distillation.teachers)
        teachers[1].model.head.fc.bias.data.fill_(float('nan'))

    runner = toy_runner(
        tmp_path,
        distiller(teachers),
        epochs=3,
        hooks=[dict(type='TeacherCheckHook', interval=1000)],
        call=(poison, 6))
    with pytest.raises(FloatingPointError, match=r"teachers \['t1'\] gave"):
        runner.train()
    files = os.listdir(tmp_path)
    assert 'epoch_1.pth' in files and 'epoch_2.pth' not in files


@pytest.mark.parametrize('labelled', [True, False])
def test_images_without_any_label(tmp_path, teachers, labelled, monkeypatch):
    """As with a wrong ignore_index: said, and the training goes on."""
    def truth(self, batch):
        made = Truth.of_labels(self._targets(batch))
        return made if labelled else replace(made, count=0 * made.count)

    monkeypatch.setattr(ClassificationTask, 'truth', truth)
    runner = toy_runner(tmp_path, distiller(teachers), epochs=1,
                        hooks=[dict(type='TeacherCheckHook')])
    said = []
    monkeypatch.setattr(runner.logger, 'warning', said.append)
    runner.train()
    assert any('no image has had a label' in text
               for text in said) is not labelled


def test_a_broken_teacher_is_found_within_the_interval(tmp_path, teachers):
    def poison(runner):
        teachers = list(runner.model.distillation.teachers)
        teachers[0].model.head.fc.bias.data.fill_(float('inf'))

    runner = toy_runner(
        tmp_path,
        distiller(teachers),
        size=80,
        hooks=[dict(type='TeacherCheckHook', interval=3)],
        call=(poison, 3))
    with pytest.raises(FloatingPointError, match=r"\['t0'\]"):
        runner.train()
    assert runner.iter == 5
