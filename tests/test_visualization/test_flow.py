"""The record of Knowledge Flow's weights, its means and its picture."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from mmkd_rl.visualization import FlowRecord, WeightRecord, plot_flow
from mmkd_rl.visualization.common import to_array

ROOT = Path(__file__).resolve().parents[2]


def synthetic(layers=2, teachers=('a', 'b'), links=1, points=30, **kwargs):
    """Record of random weights with sum one."""
    rng = np.random.default_rng(0)
    candidates = [['student'] + [
        f'{t}:layer{j}.{k}' for t in teachers for k in range(links)
    ] for j in range(layers)]
    width = 1 + len(teachers) * links
    return FlowRecord([f'layer{j}' for j in range(layers)], candidates,
                      list(teachers), [10 * n for n in range(points)],
                      rng.dirichlet(np.ones(width),
                                    (points, layers)).tolist(), **kwargs)


@pytest.fixture
def record():
    """Record of two layers with different candidates at two points, with
    values for computation by hand."""
    return FlowRecord(
        layers=['x', 'y'],
        candidates=[['student', 'a:1', 'a:2', 'b:1'], ['student', 'b:2']],
        teachers=['a', 'b'],
        iterations=[0, 100],
        weights=[[[.1, .2, .3, .4], [.7, .3]], [[.5, .25, .25, 0.], [1., 0.]]],
        retired={'b': 60})


def test_means_by_hand(record):
    mean = record.mean()
    assert list(mean) == ['student', 'a', 'b']
    np.testing.assert_allclose(mean['student'], [.4, .75])
    np.testing.assert_allclose(mean['a'], [.25, .25])
    np.testing.assert_allclose(mean['b'], [.35, 0.])


@pytest.mark.parametrize('layers, teachers, links', [
    (1, ('a', ), 1), (8, ('a', 'b', 'c'), 2),
    # a teacher whose name begins with another's and a colon
    (3, ('a', 'a:layer0', 'ab'), 2),
])
def test_means_are_sums_of_links_and_sum_to_one(layers, teachers, links):
    record = synthetic(layers, teachers, links)
    mean = record.mean()
    np.testing.assert_allclose(np.sum(list(mean.values()), 0), 1)
    weights = np.array(record.weights)  # [N, J, 1 + M * links]
    np.testing.assert_allclose(mean['student'], weights[..., 0].mean(1))
    for m, teacher in enumerate(teachers):
        mine = weights[..., 1 + m * links:1 + (m + 1) * links]
        np.testing.assert_allclose(mean[teacher], mine.sum(2).mean(1))


def test_a_teacher_without_links_has_no_weight(record):
    record.teachers.append('c')
    np.testing.assert_allclose(record.mean()['c'], 0)


def test_round_trip(record, tmp_path):
    path = str(tmp_path / 'f.json')
    record.save(path)
    assert FlowRecord.load(path) == record
    assert os.listdir(tmp_path) == ['f.json']


@pytest.mark.parametrize('change, message', [
    (dict(layers=['x']), '1 layers, but candidates of 2'),
    (dict(layers=[], candidates=[]), '0 layers'),
    (dict(candidates=[['a:1', 'student', 'a:2', 'b:1'], ['student', 'b:2']]),
     "begin with 'student'"),
    (dict(candidates=[['student', 'a:1', 'a:2', 'c:1'], ['student', 'b:2']]),
     "'c:1' must be TEACHER:LAYER"),
    (dict(teachers=['student', 'a', 'b']), "called 'student'"),
    (dict(iterations=[0]), '1 iterations, but weights at 2'),
    (dict(weights=[[[.1, .9], [1., 0.]]] * 2), 'iteration 0 do not fit'),
    (dict(retired=dict(z=3)), r"retired has \['z'\]"),
    (dict(extra=1), 'extra'),
])
def test_files_that_are_no_records(record, tmp_path, change, message):
    path = tmp_path / 'f.json'
    path.write_text(json.dumps({**vars(record), **change}))
    with pytest.raises(ValueError,
                       match=rf'f\.json.*no record of a knowledge flow.*'
                       f'{message}'):
        FlowRecord.load(str(path))


def panels(figure):
    return {axis.get_title(): axis for axis in figure.axes if axis.lines}


def legend(holder):
    return [text.get_text() for text in holder.get_texts()]


def curves(axis):
    """Lines of a plot without those of retirement, which have two points."""
    return [line for line in axis.lines if line.get_linestyle() != ':']


def test_lines_are_the_numbers(record):
    figure = plot_flow(record)
    axes = panels(figure)
    assert list(axes) == ['mean over the layers', 'x', 'y']
    lines = curves(axes['mean over the layers'])
    assert len(lines) == 3
    for line, values in zip(lines, record.mean().values()):
        np.testing.assert_allclose(line.get_xdata(), [0, 100])
        np.testing.assert_allclose(line.get_ydata(), values)
    assert lines[0].get_linewidth() > max(
        line.get_linewidth() for line in lines[1:])
    for j, name in enumerate(['x', 'y']):
        lines = curves(axes[name])
        assert len(lines) == len(record.candidates[j])
        for c, line in enumerate(lines):
            np.testing.assert_allclose(
                line.get_ydata(), [rows[j][c] for rows in record.weights])
        assert legend(axes[name].get_legend()) == record.candidates[j][1:]


def test_a_teacher_has_one_colour_and_its_links_differ(record):
    axes = panels(plot_flow(record))
    _, a, b = curves(axes['mean over the layers'])
    _, a1, a2, b1 = curves(axes['x'])
    _, b2 = curves(axes['y'])
    from matplotlib.colors import to_rgb
    assert to_rgb(a1.get_color()) == to_rgb(a.get_color())
    assert to_rgb(a2.get_color()) != to_rgb(a.get_color())
    assert to_rgb(b1.get_color()) == to_rgb(b2.get_color()) == \
        to_rgb(b.get_color())


def test_marked_and_retired_teachers_are_told_apart(record):
    figure = plot_flow(record, dict(b='noise'), 'the title')
    assert figure.get_suptitle() == 'the title'
    large = figure.subfigs[0]
    assert legend(large.legends[0]) == [
        'student', 'a', 'b (noise; not run after 60)'
    ]
    axes = panels(figure)
    assert [line.get_linestyle()
            for line in curves(axes['mean over the layers'])] == \
        ['-', '-', '--']
    for axis in axes.values():
        gone, = (line for line in axis.lines if line.get_linestyle() == ':')
        assert list(gone.get_xdata()) == [60, 60]
    record.candidates[1][1] = 'a:9'
    axes = panels(plot_flow(record))
    assert len(curves(axes['y'])) == len(axes['y'].lines), \
        'a teacher that the layer is not linked to'


@pytest.mark.parametrize('layers, teachers, links', [
    (1, 1, 1), (3, 2, 2), (4, 2, 1), (8, 3, 2), (12, 5, 2)])
def test_any_size_is_readable(layers, teachers, links):
    """Panels have a minimum size, and legends neither cover panels nor leave
    the page."""
    names = [f'teacher{m}-{"long" * 9 * (m % 2)}' for m in range(teachers)]
    record = synthetic(layers, names, links)
    record.retired = {names[0]: 200}
    figure = plot_flow(record, {names[-1]: 'noise'})
    assert to_array(figure).std() > 0
    axes = panels(figure)
    assert len(axes) == 1 + layers
    width, height = figure.get_size_inches()
    assert width < 20 and height < 20
    boxes = [axis.get_window_extent() for axis in axes.values()]
    legends = [figure.subfigs[0].legends[0]]
    legends += [axis.get_legend() for axis in list(axes.values())[1:]]
    for box in boxes:
        assert box.width > 1.3 * figure.dpi and box.height > .8 * figure.dpi
    page = figure.bbox
    for box in (entry.get_window_extent() for entry in legends):
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1
        for panel in boxes:
            across = min(box.x1, panel.x1) - max(box.x0, panel.x0)
            along = min(box.y1, panel.y1) - max(box.y0, panel.y0)
            assert across <= 1 or along <= 1


def test_one_point_and_an_empty_record_can_be_drawn():
    one = plot_flow(synthetic(points=1))
    assert curves(panels(one)['mean over the layers'])[0].get_marker() == 'o'
    assert to_array(one).std() > 0
    assert to_array(plot_flow(FlowRecord(['x'], [['student']], []))).std() > 0


# ---- the tools -----------------------------------------------------------


@pytest.fixture(params=['flow', 'weights'])
def tool(request, record):
    """A tool of tools/analysis, its file name and a record for it."""
    spec = importlib.util.spec_from_file_location(
        'tool', ROOT / 'tools' / 'analysis' / f'plot_{request.param}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if request.param == 'flow':
        return module.main, 'knowledge_flow', record, 'FlowVisualizationHook'
    return module.main, 'teacher_weights', WeightRecord(
        ['a', 'b'], [1], [[.5, .5]], [[.5, .5]], [[.6, .6]]), \
        'WeightVisualizationHook'


def test_tools_draw_a_work_directory(tool, tmp_path, capsys):
    main, name, record, _ = tool
    record.save(str(tmp_path / f'{name}.json'))
    main([str(tmp_path)])
    picture = tmp_path / f'{name}.png'
    assert capsys.readouterr().out.strip() == str(picture)
    plain = picture.read_bytes()
    assert plain[:4] == b'\x89PNG'
    out = tmp_path / 'other.png'
    main([str(tmp_path / f'{name}.json'), '--out', str(out), '--mark',
          'b=50 % = half noise', '--title', 'mine'])
    assert out.read_bytes() != plain


def refused(main, *arguments):
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return end.value.code == 2


@pytest.mark.parametrize('arguments, message', [
    (['--mark', 'z=1'], r"--mark has ['z']; the teachers are ['a', 'b']"),
    (['--mark', 'a'], "--mark must be TEACHER=NOTE, got 'a'"),
    (['--out', 'x.xyz'], "--out 'x.xyz'"),
    (['--out', 'no/such/folder/x.png'], "--out 'no/such/folder/x.png'"),
])
def test_tools_refuse_bad_options(tool, tmp_path, capsys, arguments, message):
    main, name, record, _ = tool
    record.save(str(tmp_path / f'{name}.json'))
    assert refused(main, tmp_path, *arguments)
    error = capsys.readouterr().err
    assert error.startswith('\nERROR: ') and message in error


def test_tools_say_what_writes_a_record(tool, tmp_path, capsys):
    main, name, _, hook = tool
    assert refused(main, tmp_path)
    error = capsys.readouterr().err
    assert f'{name}.json' in error and hook in error
    (tmp_path / f'{name}.json').write_text('{}')
    assert refused(main, tmp_path)
    assert 'no record of' in capsys.readouterr().err
