"""The benchmark of Knowledge Flow compares the documented parts."""

import json
import sys

import pytest

from paper_tables.flow_cost import flow_configs, plain, untrained
from tests.test_tools.test_benchmark import ROOT, benchmark  # noqa: F401

DIGITS = ['mmkd_rl::knowledge_flow/mlp-800_12e_digits.py', '--pool',
          'knowledge_flow_digits', '--distill']
FLOW = [*DIGITS, 'knowledge_flow']
SMALL = ['train_dataloader.dataset.renderings=1',
         'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False']


def run(benchmark, monkeypatch, *args, options=()):  # noqa: F811
    monkeypatch.setattr(sys, 'argv', [
        'benchmark.py', *map(str, args), '--iters', '1', '--warmup', '1',
        '--cfg-options', *SMALL, *options])
    return benchmark.main()


def test_report_of_a_real_config(benchmark, tmp_path, monkeypatch,  # noqa: F811
                                 capsys):
    out = tmp_path / 'cost.json'
    assert run(benchmark, monkeypatch, *FLOW, '--untrained', '--json',
               out) == 0
    figures = json.loads(out.read_text())
    parts = {'student', 'teachers', 'q', 'q_update', 'flow', 'kl', 'forward',
             'alone'}
    assert set(figures['seconds']) == parts
    assert all(s > 0 for s in figures['seconds'].values())
    memory = figures['peak_mb']
    assert set(memory) == parts - {'q_update'}
    # Teachers, Q and theta_old need additional memory; after withdrawal
    # teachers and Q still do.
    assert memory['student'] < memory['alone'] < memory['flow'] < memory['kl']
    assert figures['memory_flow_over_floor'] == pytest.approx(
        memory['flow'] / (memory['student'] + memory['teachers'] +
                          memory['q']))
    assert figures['memory_alone_over_student'] == pytest.approx(
        memory['alone'] / memory['student'])
    # One turn: its ratios are those of its seconds.
    s = figures['seconds']
    floor = s['student'] + s['teachers'] + s['q'] + s['q_update']
    assert figures['floor_s'] == pytest.approx(floor)
    assert figures['flow_over_floor'] == pytest.approx(s['flow'] / floor)
    assert figures['flow_over_floor_without_update'] == pytest.approx(
        s['flow'] / (floor - s['q_update']))
    assert figures['kl_over_forward'] == pytest.approx(
        (s['kl'] - s['flow']) / s['forward'])
    assert figures['alone_over_student'] == pytest.approx(
        s['alone'] / s['student'])
    assert 'student + teachers + Q' in capsys.readouterr().out


def test_lent_teachers_are_the_distillers(benchmark, tmp_path,  # noqa: F811
                                          monkeypatch, capsys):
    """Lent teachers are part of the plain student's step, and count once."""
    out = tmp_path / 'cost.json'
    assert run(benchmark, monkeypatch, *DIGITS, 'aver_kd+knowledge_flow',
               '--untrained', '--json', out,
               options=['model.probe_size=32']) == 0
    figures = json.loads(out.read_text())
    assert figures['teachers_are_lent']
    s, memory = figures['seconds'], figures['peak_mb']
    assert figures['floor_s'] == pytest.approx(
        s['student'] + s['q'] + s['q_update'])
    assert memory['teachers'] < memory['student'] < memory['flow']
    assert figures['memory_flow_over_floor'] == pytest.approx(
        memory['flow'] / (memory['student'] + memory['q']))
    assert '(student + Q)' in capsys.readouterr().out


@pytest.mark.parametrize('args, message', [
    (FLOW, 'checkpoint'),
    ([*FLOW, '--untrained', '--strategies', 'aver'], '--strategies aver'),
])
def test_wrong_input(benchmark, monkeypatch, tmp_path, capsys,  # noqa: F811
                     args, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        run(benchmark, monkeypatch, *args)
    assert error.value.code == 2
    text = capsys.readouterr().err
    assert message in text and 'Traceback' not in text


def test_the_plain_model_has_no_flow_anywhere():
    student = dict(type='ResNet', depth=18)
    flow = dict(type='mmkd_rl.KnowledgeFlowBackbone', student=student,
                teachers=[dict(name='a', checkpoint='a.pth')])
    other = dict(type='X', backbone=dict(flow))  # a teacher's own
    model = dict(type='MultiTeacherDistiller',
                 student=dict(type='Y', parts=[dict(backbone=flow)]),
                 teachers=[dict(name='b', config=other, checkpoint='b.pth')])
    assert list(flow_configs(model)) == [flow]
    assert plain(model)['student']['parts'] == [dict(backbone=student)]
    assert plain(model)['teachers'] == model['teachers']
    assert flow['type'] == 'mmkd_rl.KnowledgeFlowBackbone'
    untrained(model)
    assert flow['teachers'][0]['checkpoint'] == 'untrained'
    assert model['teachers'][0]['checkpoint'] == 'untrained'
