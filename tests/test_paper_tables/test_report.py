"""Arithmetic and text of reports; messages of tools/reproduce.py."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmkd_rl.visualization.flow import FlowRecord
from mmkd_rl.visualization.weights import WeightRecord
from paper_tables import runs
from paper_tables.pictures import plot_flows, plot_weights
from paper_tables.plan import Planner
from paper_tables.report import Report
from paper_tables.scales import SCALES
from paper_tables.summary import gather
from paper_tables.tables import TABLES
from paper_tables.text import mean_std, plus_minus

CURVES = {0: [40., 52., 51.], 1: [42., 50., 53.], 2: [38., 47., 46.]}


@pytest.fixture(scope='module')
def tool():
    path = Path(__file__).parents[2] / 'tools' / 'reproduce.py'
    spec = importlib.util.spec_from_file_location('reproduce', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend(run, curve, shift=0.):
    """Write the folder of a finished run."""
    values = [v + shift for v in curve]
    run.folder.mkdir(parents=True, exist_ok=True)
    run.output.write_text('')
    WeightRecord(['resnet14', 'wrn10-2', 'resnet20'], [1, 2],
                 [[.3, .3, .4], [.1, .2, .7]], [[0.] * 3] * 2,
                 [[1., 1.]] * 2).save(str(run.folder / 'w.json'))
    runs.write_json(
        run.folder / runs.RESULT,
        dict(identity=run.identity, seed=run.seed,
             accuracy=[[i + 1, v] for i, v in enumerate(values)],
             last=values[-1], best=max(values),
             best_epoch=int(np.argmax(values)) + 1, seconds=100., attempts=1,
             cpu_seconds=90., commit='abc', weights='w.json'))


def make(root, spoil=None, seeds=(0, 1, 2), shift=0.,
         methods=('aver', 'mtkd-rl')):
    """Make a report of methods of which the first is finished."""
    def planner(spoiled):
        return Planner(SCALES['tiny'], root, spoil=spoiled)

    table = TABLES['table1']
    plan = planner(spoil).plan(table, None, list(methods), seeds)
    for run in plan.cells[0][1]:
        pretend(run, CURVES[run.seed], shift)
    rows, teachers, notes = gather(planner, table, SCALES['tiny'], plan, None,
                                   seeds, spoil)
    return Report(table, SCALES['tiny'], rows, teachers, 'the command', seeds,
                  spoil, notes)


def test_mean_and_std_are_numpys():
    values = [51., 53.25, 46.]
    mean, std = mean_std(values)
    assert mean == pytest.approx(np.mean(values))
    assert std == pytest.approx(np.std(values, ddof=1))
    assert mean_std([3.]) == (3., None) and mean_std([]) == (None, None)
    assert plus_minus(1.234, None) == '1.23'
    assert plus_minus(1.234, .567) == '1.23 ± 0.57'


def test_the_table(tmp_path):
    report = make(tmp_path)
    files = report.write(tmp_path)
    assert [f.name for f in files] == [
        'table1.md', 'table1.json', 'table1_accuracy.png',
        'table1_weights.png']
    for picture in files[2:]:
        assert min(Image.open(picture).size) > 200
    row, other = json.loads(files[1].read_text())['rows']
    last, best = [51., 53., 46.], [52., 53., 47.]
    assert row['last']['runs'] == last and row['best']['runs'] == best
    assert row['last']['mean'] == pytest.approx(np.mean(last))
    assert row['best']['std'] == pytest.approx(np.std(best, ddof=1))
    assert row['paper']['ResNet-56'] == dict(mean=73.93, std=.16)
    assert other['last']['mean'] is None and 'not finished' in other['state']
    text = re.sub(' +', ' ', files[0].read_text())
    assert '| AVER (KD+FitNet) | 3 | 0, 1, 2 | 50.00 ± 3.61 | 50.67' in text
    assert '73.93 ± 0.16' in text and 'numbers mean nothing' in text
    assert '| last command | `the command` |' in text
    assert '4 teachers, this one 3' in text
    head = [line for line in text.splitlines() if line.startswith('|')]
    table = head[head.index(next(h for h in head if '| method' in h)):]
    assert len({line.count('|') for line in table}) == 1


def test_equal_weights_are_all_seen():
    """The dashes of equal lines fill the line without overlapping."""
    record = WeightRecord(['a', 'b', 'c'], [1, 2], [[.2] * 3] * 2,
                          [[.1, .1, .8]] * 2, [[1., 1.]] * 2)
    logit, feature = plot_weights({'AVER': [record]}, 'title').axes
    seen = []
    for line in logit.lines[:3]:
        offset, (on, gap) = line._unscaled_dash_pattern
        seen += [(p + offset) % (on + gap) < on for p in range(18)]
    assert [sum(seen[p::18]) for p in range(18)] == [1] * 18
    assert [line.get_linestyle() for line in feature.lines[:3]] == [
        '--', '--', '-']


def test_one_seed_has_no_deviation(tmp_path):
    row = make(tmp_path, seeds=(1, )).rows[0].as_dict()
    assert row['last'] == dict(mean=53., std=None, runs=[53.])


def test_earlier_seeds_are_in_the_table(tmp_path):
    make(tmp_path)
    assert make(tmp_path, seeds=(1, )).rows[0].as_dict()['seeds'] == [0, 1, 2]


def test_methods_that_must_be_named_are_in_the_table(tmp_path):
    """Extra methods are in this table and in later ones of other requests."""
    asked = make(tmp_path, seeds=(0, ), methods=['mtkd-rl_official'])
    for report in (asked, make(tmp_path, seeds=(0, ))):
        assert 'mtkd-rl_official' in [r.cell.method for r in report.rows]
    make(tmp_path / 'other', seeds=(0, ))
    assert len(make(tmp_path / 'other', seeds=(0, )).rows) == 2


def test_loss_against_the_unspoiled_pool(tmp_path):
    make(tmp_path)
    report = make(tmp_path, 'wrn10-2', shift=-4.)
    assert report.rows[0].as_dict()['change'] == pytest.approx(-4.)
    text = report.write(tmp_path)[0].read_text()
    assert '-4.00' in text and 'wrn10-2 spoiled' in text
    assert make(tmp_path / 'alone', 'wrn10-2').rows[0].change() is None
    # Only the seeds that both have: 46 - 4 - 46 = -4, not 42 - 50.
    assert make(tmp_path, 'wrn10-2', (2, ), -4.).rows[0].change() == \
        pytest.approx(-4.)


@pytest.mark.parametrize('arguments, message', [
    (['tabel1'], 'near: table1'),
    (['table1', '--methods', 'avr'], 'near: aver'),
    (['table1', '--scale', 'shrot'], 'near: short'),
    (['table1', '--jobs', '0'], '--jobs must be >= 1, got 0'),
    (['table1', '--seeds', '1', '1'], '--seeds must be different'),
    (['table1', '--teacher', 'wrn'], '--teacher must be NAME=FILE'),
])
def test_wrong_requests(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        tool.main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error


def test_time_of_students_where_teachers_are_unknown(tool, capsys, tmp_path):
    assert tool.main(['table1', '--students', 'resnet56', '--methods',
                      'MTKD_RL', '--seeds', '0', '--dry-run', '--work-dir',
                      str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert 'expected 3:08:00' in text  # 240 epochs of 47 s
    assert 'Table 6(c)' in text and 'not estimated: 4 teachers' in text


def test_missing_data(tool, capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        tool.main(['table1', '--scale', 'short', '--methods', 'baseline',
                   '--data-root', str(tmp_path / 'no'), '--work-dir',
                   str(tmp_path)])
    assert caught.value.code == 2
    assert 'no images in' in capsys.readouterr().err


def test_dry_run(tool, capsys, tmp_path):
    assert tool.main(['table1', '--scale', 'short', '--methods', 'mtkd-rl',
                      '--dry-run', '--jobs', '2', '--work-dir',
                      str(tmp_path)]) == 0
    text = capsys.readouterr().out
    # Teachers 290, 350 and 260 s, three students 220 s each, two at a time.
    assert '6 runs, 0 of them done before; expected 13:00' in text
    assert text.index('teacher resnet14') < text.index('mtkd-rl resnet8')
    assert '3:40' in text and 'new' in text
    assert not list(tmp_path.iterdir())


def test_flows_are_means_over_seeds():
    """For two seeds and two layers the line shows the student's mean."""
    def record(p):
        rows = [[[q, 1 - q], [1., 0.]] for q in p]
        return FlowRecord(['a', 'b'], [['student', 't:x'], ['student', 't:y']],
                          ['t'], [0, 5], rows)

    (axis, ) = plot_flows(
        {'ours': [record([.2, .6]), record([.4, 1.])]}, 'title').axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert lines['student'] == pytest.approx([.65, .9])
    assert lines['t'] == pytest.approx([.35, .1])
    assert len(axis.lines) == 6
