"""The demo's commands and messages, and when its steps count as done."""

import fcntl
import importlib.util
import json
import time
from pathlib import Path

import pytest

from demo_parts.steps import RECORD, Step, plan
from demo_parts.summary import explain, summarize, table
from task_runner import Runner

TOOL = Path(__file__).parents[1] / 'tools' / 'demo.py'


@pytest.fixture(scope='module')
def demo():
    spec = importlib.util.spec_from_file_location('demo', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def step(root, name, needs=(), code='', text='x'):
    out = root / name / 'out'
    code = f'{code}\nopen({str(out)!r}, "w").write({text!r})'
    return Step(name, root / name, list(needs), command=['-c', code],
                output=out, inputs=[root / need / 'out' for need in needs])


def conduct(*steps):
    runner = Runner(steps, 2, 1, lambda line: None, keep_going=False)
    runner.run()
    return runner


def test_steps_run_after_what_they_need(tmp_path):
    log = tmp_path / 'order'
    note = 'open({!r}, "a").write("{}")'.format
    conduct(
        step(tmp_path, 'b', ['a'], note(str(log), 'b')),
        step(tmp_path, 'c', ['b'], note(str(log), 'c')),
        step(tmp_path, 'a', [], note(str(log), 'a')))
    assert log.read_text() == 'abc'


def test_what_is_unchanged_is_reused(tmp_path):
    steps = [step(tmp_path, 'a'), step(tmp_path, 'b', ['a'])]
    assert conduct(*steps).reused == []
    assert conduct(*steps).reused == ['a', 'b']
    assert steps[0].record()['seconds'] >= 0


def test_a_changed_input_runs_what_depends_on_it(tmp_path):
    b, c = step(tmp_path, 'b', ['a']), step(tmp_path, 'c')
    conduct(step(tmp_path, 'a'), b, c)
    changed = step(tmp_path, 'a', text='y')
    assert conduct(changed, b, c).reused == ['c']


def test_a_damaged_output_is_made_again(tmp_path):
    a = step(tmp_path, 'a')
    conduct(a)
    a.output.write_text('half')
    assert conduct(a).reused == []
    assert a.output.read_text() == 'x'


def test_a_failed_step_stops_the_others(tmp_path):
    slow = step(tmp_path, 'slow', (), 'import time; time.sleep(30)')
    bad = step(tmp_path, 'bad', (), 'raise SystemExit("no such luck")')
    start = time.monotonic()
    assert conduct(slow, bad).failed == {'bad': 'exit code 1'}
    assert time.monotonic() - start < 20
    assert not (tmp_path / 'bad' / RECORD).exists()
    # An interrupted step starts again from the beginning.
    assert slow.done() is None and not slow.output.exists()
    assert conduct(step(tmp_path, 'bad')).reused == []


def test_a_command_that_writes_nothing_has_failed(tmp_path):
    quiet = step(tmp_path, 'quiet')
    quiet.command = ['-c', '']
    assert 'wrote no' in conduct(quiet).failed['quiet']


def test_a_failed_step_is_a_failed_demo(demo, tmp_path, monkeypatch, capsys):
    """The end of the step's log is shown; the step is run again, with and
    without --fresh."""
    bad = step(tmp_path, 'bad', (), 'raise SystemExit("no such luck")')
    monkeypatch.setattr('demo_parts.steps.plan', lambda *args: [bad])
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ['--fresh']):
        assert demo.main(['--work-dir', str(tmp_path), *arguments]) == 1
        said = capsys.readouterr()
        assert 'FAILED' in said.out and 'no such luck' in said.out
        assert 'step bad failed' in said.err


def test_fresh_runs_what_is_done(demo, tmp_path, monkeypatch):
    a, runs = step(tmp_path, 'a'), []
    monkeypatch.setattr('demo_parts.steps.plan', lambda *args: [a])
    monkeypatch.setattr(demo, 'report',
                        lambda args, steps, changed: runs.append(changed))
    monkeypatch.chdir(tmp_path)
    for arguments in ([], [], ['--fresh']):
        assert demo.main(['--work-dir', str(tmp_path), *arguments]) == 0
    assert runs == [True, False, True]


def test_one_demo_at_a_time_in_a_folder(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert demo.main(['--work-dir', str(tmp_path)]) == 2
    assert 'another demo' in capsys.readouterr().err


@pytest.mark.parametrize('tiny', [False, True])
def test_plan_is_complete(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(TOOL.parents[1])
    steps = plan(tmp_path, 0, tiny)
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


def test_summary_holds_what_was_measured():
    summary = summarize(records(), seed=3, iterations=450)
    json.dumps(summary)
    assert summary['student'] == dict(alone=.8, aver=.83, mtkd_rl=.85)
    assert summary['detector'] == dict(plain=.4, mtkd_rl=.4)
    assert summary['segmentor'] == dict(plain=.5, mtkd_rl=.5)
    assert (summary['seed'], summary['iterations']) == (3, 450)
    text = table(summary, records())
    assert '85.0%' in text and '40.0% / 30.0%' in text


def test_words_follow_the_numbers():
    weights = dict(teachers=['resnet20', 'wrn10_2', 'densenet'],
                   logit=[[.4, .4, .2]], feature=[[.3, .3, .4]])

    def words(**accuracy):
        summary = summarize(records(**accuracy), 0, 450)
        return explain(summary, weights, 2396)

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
