"""The benchmark measures what it says: parts add up, memory is counted."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmkd_rl import distill
from mmkd_rl.export.student import plain_copy
from mmkd_rl.registry import MODELS
from paper_tables import timing
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
    assert {
        'student_s', 'teachers_s', 'floor_s', 'aver_s', 'strategy_s',
        'agent_s', 'peak_mb', 'strategy_over_floor', 'strategy_over_aver'
    } <= set(figures)
    # The agent's update is part of the strategy's step, and costs something.
    assert 0 < figures['agent_s'] < figures['strategy_s']
    memory = figures['peak_mb']
    # Three teachers weigh more than the student alone; the agent and its
    # history come on top of equal weights.
    assert 0 < memory['student'] < memory['aver'] < memory['strategy']
    assert figures['batch_size'] == 8
    assert 'strategy / floor' in capsys.readouterr().out


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
    rows = json.loads(out.read_text())['strategies']
    assert list(rows) == ['baseline', 'aver', 'ca_mkd', 'mmkd', 'mtkd_rl']
    assert rows['aver']['over_aver'] == rows['aver']['memory_over_aver'] == 1
    assert rows['baseline']['memory_over_aver'] < 1
    # An agent, or networks with a buffer, need room.
    for name in ('mtkd_rl', 'mmkd'):
        assert rows[name]['memory_over_aver'] > 1
    text = capsys.readouterr()
    assert 'without MetaWeightingHook' not in text.out + text.err
    assert 'note: --iters 1' in text.err
    lines = [line for line in text.out.splitlines() if line.startswith('|')]
    assert len(lines) == 2 + len(rows)
    assert len({line.count('|') for line in lines}) == 1
    assert '| ca_mkd |' in lines[4]
    assert '| 54 | 1.32 | 2.9 | 1.04 |' in lines[4]


def test_comparison_counts_the_meta_steps_share(benchmark, monkeypatch):
    """A step of 10 ms with a meta step of 50 ms in five takes twice as
    long."""
    clock = [0.]
    cfg = benchmark.Config(dict(custom_hooks=[]))

    class Fake:
        learner = object.__new__(benchmark.MetaLearner)

        def step(self):
            clock[0] += .01

        def update(self):
            clock[0] += .05

    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock[0])
    assert benchmark._own_seconds(Fake(), cfg, 2) == pytest.approx(.01)
    cfg.custom_hooks.append(dict(type='mmkd_rl.MetaWeightingHook', interval=2))
    assert benchmark._own_seconds(Fake(), cfg, 2) == pytest.approx(.025)


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


def test_unknown_strategy(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, 'argv', ['benchmark.py', 'x.py', '--strategies', 'mmdk'])
    with pytest.raises(SystemExit):
        benchmark.parse_args()
    assert "'mmdk'" in capsys.readouterr().err


@pytest.fixture
def toy(tmp_path):
    """From a distiller's options to its config and a batch."""
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
    """Its own losses and nothing of a distillation, in a contestant."""
    cfg, data = toy()
    distilled = MODELS.build(cfg.model)
    student = plain_copy(distilled)
    contestant = benchmark.DistilledContestant(student, cfg, data)
    assert contestant.distillation is contestant.learner is None
    assert set(student.train_step(data, contestant.optimizer)) == {'loss'}
    assert 'loss_logit' in distilled.train_step(
        data, timing.Contestant(distilled, cfg, data).optimizer)


def test_a_student_is_named_by_its_path(benchmark, toy, tmp_path):
    """Then its config is read where it is."""
    path = tmp_path / 'student.py'
    path.write_text(f"default_scope = 'mmpretrain'\n"
                    f'model = {classifier(8, hidden=6)!r}\n')
    cfg, _ = toy(student=str(path))
    assert benchmark._classifier(cfg)['type'] == 'mmpretrain.ImageClassifier'
    assert benchmark._num_classes(cfg) == 5


def test_teachers_are_counted(toy):
    """They are no part of the model, but live as long."""
    cfg, data = toy()
    model = MODELS.build(cfg.model)
    found = {id(t) for t in timing.Contestant(model, cfg, data).resident()}
    teachers = {id(p) for teacher in model.distillation.teachers
                for p in teacher.parameters()}
    assert teachers and teachers <= found
    assert not teachers & {id(p) for p in model.parameters()}


@pytest.mark.parametrize('reward_time', ['before', 'after'])
def test_a_step_goes_into_the_history(benchmark, toy, reward_time):
    """As the agent's hook puts it there, with another look if the reward is
    of after the step."""
    cfg, data = toy(weighting=dict(type='MTKDRL', reward_time=reward_time))
    contestant = benchmark.DistilledContestant(
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
    """Images and teachers' outputs wait for the second look."""
    cfg, data = toy(weighting=dict(type='MMKD'))
    contestant = benchmark.DistilledContestant(
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
