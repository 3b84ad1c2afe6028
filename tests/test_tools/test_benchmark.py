"""The benchmark's parts add up, and all memory is counted."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmkd_rl import distill
from mmkd_rl.export.student import plain_copy
from mmkd_rl.registry import MODELS
from paper_tables import timing
from paper_tables.distillation_cost import (
    DistilledContestant,
    in_turns_with_updates,
    update_interval,
    with_strategy,
)
from tests.toy import World, classifier, distiller, samples, toy_teachers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def benchmark():
    path = ROOT / 'tools' / 'benchmark.py'
    spec = importlib.util.spec_from_file_location('benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_report_of_a_real_config(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'cost.json'
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [
        'benchmark.py', 'configs/demo/student_mtkd_rl.py', '--untrained',
        '--iters', '2', '--warmup', '1', '--json',
        str(out), '--cfg-options', 'train_dataloader.dataset.renderings=1',
        'train_dataloader.batch_size=8'
    ])
    assert benchmark.main() == 0
    figures = json.loads(out.read_text())
    steps = figures['steps']
    assert list(steps) == ['baseline', 'teachers', 'floor', 'aver', 'strategy']
    # The agent's update is part of the strategy's step, and takes time.
    own = steps['strategy']
    assert 0 < own['update_s'] < own['step_s']
    # How large it is depends on what else is running.
    assert steps['floor']['over_floor'] == 1 and own['over_floor'] > 0
    # Three teachers need more memory than the student; the agent and its
    # history are needed in addition to AVER's memory.
    memory = {name: row.get('peak_mb') for name, row in steps.items()}
    assert 0 < memory['baseline'] < memory['aver'] < memory['strategy']
    # The config's agent is trained once an epoch.
    assert own['learner_mb'] > 1 and own['interval'] == 100
    assert figures['batch_size'] == 8
    assert '| strategy |' in re.sub(' +', ' ', capsys.readouterr().out)


def test_comparison_of_strategies(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'cost.json'
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [
        'benchmark.py', 'configs/demo/student_mtkd_rl.py', '--untrained',
        '--strategies', 'ca-mkd', 'mmkd', 'mtkd_rl', '--iters', '1',
        '--warmup', '1', '--json', str(out), '--cfg-options',
        'train_dataloader.dataset.renderings=1',
        'train_dataloader.batch_size=8'
    ])
    assert benchmark.main() == 0
    rows = json.loads(out.read_text())['steps']
    assert list(rows) == ['baseline', 'teachers', 'floor', 'aver', 'ca_mkd',
                          'mmkd', 'mtkd_rl']
    assert rows['mmkd']['interval'] == 5
    assert rows['aver']['over_aver'] == rows['aver']['memory_over_aver'] == 1
    assert rows['baseline']['memory_over_aver'] < 1
    # An agent, or networks with a buffer, need memory.
    for name in ('mtkd_rl', 'mmkd'):
        assert rows[name]['memory_over_aver'] > 1
    text = capsys.readouterr()
    assert 'without MetaWeightingHook' not in text.out + text.err
    assert 'note: --iters 1' in text.err
    lines = [re.sub(' +', ' ', line) for line in text.out.splitlines()
             if line.startswith('|')]
    assert len(lines) == 2 + len(rows)
    assert len({line.count('|') for line in lines}) == 1
    assert '| ca_mkd |' in lines[6]
    assert '| 54 (1.32) | 2.9 (1.04) |' in lines[6]


@pytest.mark.parametrize('from_all, expected', [(False, .02), (True, .035)])
def test_a_step_has_its_share_of_the_updates(monkeypatch, from_all, expected):
    """Steps of 10 ms. An update of 50 ms every fifth step adds 10; one of
    25 ms a step since the last adds 25."""
    clock = [0.]

    class Fake:
        learner = SimpleNamespace(learns_from_all=from_all)
        interval, since = 5, 0

        def kept_share(self):
            return 1.

        def step(self):
            clock[0] += .01
            self.since += 1

        def update(self):
            clock[0] += .025 * self.since if from_all else .05
            self.since = 0

    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock[0])
    times, shares = in_turns_with_updates(dict(a=Fake()), {}, 2, 3)
    assert times == dict(a=[pytest.approx(expected)] * 3)
    assert shares['a'] == pytest.approx(expected - .01)


@pytest.mark.parametrize('hooks, expected', [
    ([], 7), ([dict(type='mmkd_rl.AgentAlternationHook', warmup=2)], 14),
    ([dict(type='AgentAlternationHook', interval=3, by_epoch=False)], 3),
    ([dict(type='mmkd_rl.MetaWeightingHook')], 7),
])
def test_the_interval_is_that_of_the_learners_hook(toy, hooks, expected):
    """With epochs of 7 iterations; the hook of another learner is ignored, and
    without a hook in the config the strategy's is used."""
    cfg, _ = toy(weighting=dict(type='MTKDRL'))
    weighting = MODELS.build(cfg.model).distillation.weighting
    cfg.custom_hooks = hooks
    assert update_interval(weighting, cfg, 7) == expected


def test_a_learner_of_any_kind_says_what_it_holds(toy):
    """The learner's bytes include all tensors and the full history, into which
    3 of 100 batches fit."""
    cfg, data = toy(weighting=dict(type='MTKDRL'))
    contestant = DistilledContestant(MODELS.build(cfg.model), cfg, data, 100)
    contestant.step()
    learner = contestant.learner
    batch = learner.history.nbytes
    assert batch > 0
    held = {id(t) for t in learner.tensors()}
    assert {id(p) for p in learner.policy.parameters()} <= held
    bare = sum(t.numel() * t.element_size()
               for t in learner.tensors()) - batch
    learner.history.max_bytes = 3 * batch
    assert learner.nbytes_after(2) == bare + 2 * batch
    assert learner.nbytes_after(100) == bare + 3 * batch
    assert contestant.learner_memory() == learner.nbytes_after(100)


def test_steps_whose_rewards_are_not_computed_are_timed(benchmark, toy,
                                                        monkeypatch):
    """A history with room for 3 of 12 batches: a step takes a quarter of the
    time of one that is kept and three quarters of that of one that is not."""
    from paper_tables import distillation_cost
    cfg, data = toy(weighting=dict(type='MTKDRL'))
    contestant = DistilledContestant(MODELS.build(cfg.model), cfg, data, 12)
    assert contestant.kept_share() == 1
    learner = contestant.learner
    learner.history.max_bytes = 3 * learner.history.nbytes
    assert contestant.kept_share() == 3 / 12
    # When it is full every other batch is removed: 2 of 16, not 3.
    contestant.interval = 16
    assert contestant.kept_share() == 2 / 16
    contestant.interval = 12
    held = len(learner.history)
    contestant.step_not_kept()
    assert len(learner.history) == 0 < held
    monkeypatch.setattr(
        distillation_cost, 'in_turns',
        lambda steps, warmup, iters: {
            name: [4. if 'not kept' in name else 8.] * iters
            for name in steps})
    times, shares = distillation_cost.in_turns_with_updates(
        dict(a=contestant), {}, 1, 2)
    assert times['a'] == [5. + shares['a']] * 2


@pytest.mark.parametrize('name, expected', [
    ('aver_kd', dict(feature_loss=None)),
    ('ca_mkd_official', dict(weighting=dict(type='CAMKD',
                                            detach_feature=False))),
    ('mtkd_rl', dict(weighting=dict(type='mmkd_rl.MTKDRL', history_bytes=9))),
])
def test_a_strategy_is_what_its_recipe_says(name, expected):
    """Terms that equal AVER's are those of the config, and so are the options
    of the config's own strategy."""
    model = dict(weighting=dict(type='mmkd_rl.MTKDRL', history_bytes=9),
                 logit_loss='mine')
    made = with_strategy(model, name)
    assert made['logit_loss'] == 'mine'
    for key, value in expected.items():
        assert made[key] == value


@pytest.mark.parametrize('config, message', [
    ('configs/demo/studnet_mtkd_rl.py', 'student_mtkd_rl.py'),
    ('configs/cifar100/baseline/resnet8_1xb64-6e_cifar100-fifth.py',
     'does not distil'),
    ('configs/cifar100/baseline/resnet56_240e_cifar100.py --distill aver '
     '--pool cifar100_table1', '--untrained'),
])
def test_wrong_input(benchmark, monkeypatch, tmp_path, capsys, config,
                     message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [
        'benchmark.py', *f'{ROOT}/{config}'.split(), '--cfg-options',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False'
    ])
    with pytest.raises(SystemExit) as error:
        benchmark.main()
    text = capsys.readouterr().err
    assert error.value.code == 2
    assert message in text and 'Traceback' not in text


@pytest.mark.parametrize('config, size, classes', [
    ('cifar100/baseline/resnet56_240e_cifar100.py', 32, 100),
    ('imagenet/baseline/resnet18_100e_imagenet.py', 224, 1000),
    ('imagenet/baseline/deit-tiny_300e_imagenet.py', 224, 1000),
])
def test_random_images_where_there_are_none(benchmark, monkeypatch, tmp_path,
                                            config, size, classes):
    cfg = distill(f'mmkd_rl::{config}', 'aver', pool='cifar100_table1'
                  if size == 32 else 'imagenet_table2')
    monkeypatch.chdir(tmp_path)
    benchmark.init_default_scope('mmpretrain')
    cfg.train_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False)
    data, iters = benchmark._batch(cfg, True)
    assert [tuple(i.shape) for i in data['inputs']] == [(3, size, size)] * 2
    labels = torch.cat([s.gt_label for s in data['data_samples']])
    assert 0 <= labels.min() and labels.max() < classes
    assert iters == benchmark.EPOCHS[classes] // 2


@pytest.mark.parametrize('name, message', [
    ('mmdk', "did you mean 'mmkd'"),
    ('knowledge_flow', 'weighs no teachers'),
])
def test_unknown_strategy(benchmark, monkeypatch, capsys, name, message):
    monkeypatch.setattr(
        sys, 'argv', ['benchmark.py', 'x.py', '--strategies', name])
    with pytest.raises(SystemExit):
        benchmark.parse_args()
    assert message in capsys.readouterr().err


@pytest.fixture
def toy(tmp_path):
    """Config of a distiller with the given options, and a batch."""
    def make(**options):
        cfg = Config(
            dict(
                default_scope='mmkd_rl',
                model=distiller(toy_teachers(tmp_path), **options),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1))),
            format_python_code=False)
        images, labels = World().batch(4)
        return cfg, dict(
            inputs=list(images), data_samples=samples(labels))

    return make


def test_the_student_alone_is_plain(benchmark, toy):
    """The contestant has the student's own losses and no distillation."""
    cfg, data = toy()
    distilled = MODELS.build(cfg.model)
    student = plain_copy(distilled)
    contestant = DistilledContestant(student, cfg, data)
    assert contestant.distillation is contestant.learner is None
    assert set(student.train_step(data, contestant.optimizer)) == {'loss'}
    assert 'loss_logit' in distilled.train_step(
        data, timing.Contestant(distilled, cfg, data).optimizer)


def test_a_student_is_named_by_its_path(benchmark, toy, tmp_path):
    """A student that is given as a path is read from there."""
    path = tmp_path / 'student.py'
    path.write_text(f"default_scope = 'mmpretrain'\n"
                    f'model = {classifier(8, hidden=6)!r}\n')
    cfg, _ = toy(student=str(path))
    assert benchmark._classifier(cfg)['type'] == 'mmpretrain.ImageClassifier'
    assert benchmark._num_classes(cfg) == 5


def test_teachers_are_counted(toy):
    """Teachers are not part of the model's state, but live as long."""
    cfg, data = toy()
    model = MODELS.build(cfg.model)
    found = {id(t) for t in timing.Contestant(model, cfg, data).resident()}
    teachers = {id(p) for teacher in model.distillation.teachers
                for p in teacher.parameters()}
    assert teachers and teachers <= found
    assert not teachers & {id(p) for p in model.parameters()}


@pytest.mark.parametrize('reward_time', ['before', 'after'])
def test_a_step_goes_into_the_history(benchmark, toy, reward_time):
    """The step is added to the history as by the agent's hook, with another
    forward pass if the reward is computed after the step."""
    cfg, data = toy(weighting=dict(type='MTKDRL', reward_time=reward_time))
    contestant = DistilledContestant(
        MODELS.build(cfg.model), cfg, data)
    looks = []
    look = contestant.distillation.forward_after_step
    contestant.distillation.forward_after_step = \
        lambda *args: looks.append(args) or look(*args)
    contestant.step()
    entry, = contestant.learner.history
    assert entry.reward.isfinite().all()
    assert len(looks) == (reward_time == 'after')


def test_what_is_kept_of_a_batch_is_counted(benchmark, toy):
    """Images and teachers' outputs are kept for the second forward pass."""
    cfg, data = toy(weighting=dict(type='MMKD'))
    contestant = DistilledContestant(
        MODELS.build(cfg.model), cfg, data)
    contestant.step()
    seen = contestant.distillation.last_step.seen
    kept = {id(seen.batch.images)} | {
        id(t) for output in seen.teachers.outputs for t in output.tensors()}
    assert len(kept) == 1 + 2 * 2
    assert kept <= {id(t) for t in contestant.resident()}


def test_peak_is_that_of_the_step():
    """A step that holds two arrays of 4 MB at once peaks at 8 MB, though it
    allocates 12."""

    def step():
        a = torch.empty(2**20)
        b = a + 1
        del a
        c = b * 2
        return b, c

    if torch.cuda.is_available():
        pytest.skip('counts what lies on the CPU')
    peak = timing.peak(step)
    assert 8 * 2**20 <= peak < 8.5 * 2**20


def test_iters_must_be_positive(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', 'x.py', '--iters', '0'])
    with pytest.raises(SystemExit) as error:
        benchmark.parse_args()
    assert error.value.code == 2
    assert '--iters must be >= 1, got 0' in capsys.readouterr().err
