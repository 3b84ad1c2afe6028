"""The demo's conductor: what it runs, reuses, stops, and says."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / 'tools' / 'demo.py'


@pytest.fixture(scope='module')
def demo():
    spec = importlib.util.spec_from_file_location('demo', TOOL)
    module = sys.modules['demo'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def step(demo, root, name, needs=(), code='', text='x'):
    out = root / name / 'out'
    code = f'{code}\nopen({str(out)!r}, "w").write({text!r})'
    return demo.Step(name, ['-c', code], list(needs), out)


def conduct(demo, root, *steps, fresh=False):
    conductor = demo.Conductor(list(steps), root, 2, 1, fresh)
    conductor.run()
    return conductor


def test_steps_run_after_what_they_need(demo, tmp_path):
    log = tmp_path / 'order'
    note = 'open({!r}, "a").write("{}")'.format
    conduct(
        demo, tmp_path,
        step(demo, tmp_path, 'b', ['a'], note(str(log), 'b')),
        step(demo, tmp_path, 'c', ['b'], note(str(log), 'c')),
        step(demo, tmp_path, 'a', [], note(str(log), 'a')))
    assert log.read_text() == 'abc'


def test_what_is_unchanged_is_reused(demo, tmp_path):
    steps = [step(demo, tmp_path, 'a'), step(demo, tmp_path, 'b', ['a'])]
    assert conduct(demo, tmp_path, *steps).reused == []
    again = conduct(demo, tmp_path, *steps)
    assert again.reused == ['a', 'b']
    assert again.records['a']['seconds'] >= 0
    assert conduct(demo, tmp_path, *steps, fresh=True).reused == []


def test_a_changed_input_runs_what_depends_on_it(demo, tmp_path):
    b, c = step(demo, tmp_path, 'b', ['a']), step(demo, tmp_path, 'c')
    conduct(demo, tmp_path, step(demo, tmp_path, 'a'), b, c)
    changed = step(demo, tmp_path, 'a', text='y')
    assert conduct(demo, tmp_path, changed, b, c).reused == ['c']


def test_a_damaged_output_is_made_again(demo, tmp_path):
    a = step(demo, tmp_path, 'a')
    conduct(demo, tmp_path, a)
    a.output.write_text('half')
    assert conduct(demo, tmp_path, a).reused == []
    assert a.output.read_text() == 'x'


def test_a_failed_step_stops_the_others_and_shows_its_log(demo, tmp_path):
    done = tmp_path / 'slow_done'
    slow = step(demo, tmp_path, 'slow', (), 'import time; time.sleep(30)')
    bad = step(demo, tmp_path, 'bad', (), 'raise SystemExit("no such luck")')
    with pytest.raises(demo.StepFailed, match='step bad failed') as failure:
        conduct(demo, tmp_path, slow, bad)
    assert 'no such luck' in str(failure.value)
    assert not done.exists()
    assert not (tmp_path / 'bad' / 'done.json').exists()
    # What was interrupted is begun anew, what was done is kept.
    good = step(demo, tmp_path, 'bad')
    assert conduct(demo, tmp_path, good).reused == []


def test_a_command_that_writes_nothing_has_failed(demo, tmp_path):
    quiet = demo.Step('quiet', ['-c', ''], [], tmp_path / 'quiet' / 'out')
    with pytest.raises(demo.StepFailed, match='quiet'):
        conduct(demo, tmp_path, quiet)


def test_progress_is_read_from_the_log(demo, tmp_path):
    a = step(demo, tmp_path, 'a')
    a.epochs = 4
    (tmp_path / 'a').mkdir()
    log = tmp_path / 'a' / 'log.txt'
    assert demo.progress(a, tmp_path) == ''
    log.write_text('x - Epoch(train)   [3][ 75/150]  lr: 1\n')
    assert demo.progress(a, tmp_path).strip() == '62%'
    log.write_text('x - Iter(train) [ 50/200]  lr: 1\n')
    assert demo.progress(a, tmp_path).strip() == '25%'


@pytest.mark.parametrize('tiny', [False, True])
def test_plan_is_complete(demo, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(TOOL.parents[1])
    steps = demo.plan(tmp_path, 0, tiny)
    names = [s.name for s in steps]
    assert len(set(names)) == len(names) == 13
    assert all(need in names for s in steps for need in s.needs)
    for s in steps:
        assert str(tmp_path) in str(s.output)
        assert s.config is None or Path(s.config).is_file()


def records(alone=.80, aver=.83, mtkd_rl=.85):
    accuracy = dict(
        teacher_resnet20=.94, teacher_wrn10_2=.93, teacher_densenet=.7,
        student_alone=alone, student_aver=aver, student_mtkd_rl=mtkd_rl)
    metrics = {k: {'accuracy/top1': 100 * v} for k, v in accuracy.items()}
    for which in ('plain', 'mtkd_rl'):
        metrics[f'mask_rcnn_{which}'] = {
            'coco/bbox_mAP': .4, 'coco/segm_mAP': .3}
        metrics[f'pspnet_{which}'] = {'mIoU': 50.}
    return {k: dict(metrics=v, seconds=1.) for k, v in metrics.items()}


def test_summary_holds_what_was_measured(demo):
    summary = demo.summarize(records(), seed=3, iterations=450)
    json.dumps(summary)
    assert summary['student'] == dict(alone=.8, aver=.83, mtkd_rl=.85)
    assert summary['detector'] == dict(plain=.4, mtkd_rl=.4)
    assert summary['segmentor'] == dict(plain=.5, mtkd_rl=.5)
    assert (summary['seed'], summary['iterations']) == (3, 450)
    text = demo.table(summary, records())
    assert '85.0%' in text and '40.0% / 30.0%' in text


def test_words_follow_the_numbers(demo):
    weights = dict(teachers=['resnet20', 'wrn10_2', 'densenet'],
                   logit=[[.4, .4, .2]], feature=[[.3, .3, .4]])

    def words(**accuracy):
        summary = demo.summarize(records(**accuracy), 0, 450)
        return demo.explain(summary, weights, 2396)

    assert 'MTKD-RL is 4.0 points above AVER.' in words(aver=.81)
    assert 'MTKD-RL is 6.0 points below AVER.' in words(aver=.91)
    assert 'MTKD-RL is 0.5 points below AVER, which can be chance.' in \
        words(aver=.855)
    assert 'With MTKD-RL it is 5.0 points below itself alone.' in \
        words(alone=.9)
    assert 'gets -40% compared with equal' in words()
    assert 'gets +20% compared with equal' in words()


@pytest.mark.parametrize('arguments', [['--jobs', '0'], ['--seed', '-1']])
def test_bad_arguments_end_with_2(demo, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        demo.main(arguments)
    assert end.value.code == 2
    assert f'got {arguments[1]}' in capsys.readouterr().err
