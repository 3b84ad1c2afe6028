"""The record of weights, and the content of its pictures."""

import json
import os

import numpy as np
import pytest

from mmkd_rl.visualization.common import to_array
from mmkd_rl.visualization.weights import (
    WeightRecord,
    draw_samples,
    plot_weights,
)


@pytest.fixture
def record():
    return WeightRecord(
        teachers=['a', 'b', 'c'],
        iterations=[10, 20],
        logit=[[.3, .3, .4], [.1, .2, .7]],
        feature=[[.4, .3, .3], [.5, .2, .3]],
        entropy=[[1.09, 1.09], [.8, 1.03]])


def test_round_trip(record, tmp_path):
    path = str(tmp_path / 'w.json')
    record.save(path)
    assert WeightRecord.load(path) == record
    assert os.listdir(tmp_path) == ['w.json']


def test_a_write_that_fails_leaves_the_old_file(record, tmp_path,
                                                monkeypatch):
    path = str(tmp_path / 'w.json')
    record.save(path)

    def fail(obj, file, **kwargs):
        file.write('{"half')
        raise OSError('no space left on device')

    monkeypatch.setattr(json, 'dump', fail)
    with pytest.raises(OSError):
        record.save(path)
    monkeypatch.undo()
    assert WeightRecord.load(path) == record
    assert os.listdir(tmp_path) == ['w.json']


@pytest.mark.parametrize('text', ['[1, 2]', '{"teachers": ["a"], "x": 1}',
                                  '{"teach', '3', '{}'])
def test_files_that_are_no_records(tmp_path, text):
    path = tmp_path / 'w.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'w\.json.*no record of weights'):
        WeightRecord.load(str(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        WeightRecord.load(str(tmp_path / 'absent.json'))


def test_lines_are_the_numbers_and_marked_ones_are_dashed(record):
    figure = plot_weights(record, mark=dict(b='noise'))
    for axis, rows in zip(figure.axes, (record.logit, record.feature)):
        lines = axis.get_lines()
        for m in range(3):
            np.testing.assert_allclose(lines[m].get_xdata(), [10, 20])
            np.testing.assert_allclose(lines[m].get_ydata(),
                                       [row[m] for row in rows])
        assert [line.get_linestyle() for line in lines[:3]] == \
            ['-', '--', '-']
        np.testing.assert_allclose(lines[3].get_ydata(), 1 / 3)
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == ['a', 'b (noise)', 'c', 'equal weights']


@pytest.mark.parametrize('kind', ['logits', 'features'])
def test_what_is_not_distilled_is_not_drawn(record, kind, tmp_path):
    record.kinds = [kind]
    record.save(str(tmp_path / 'w.json'))
    again = WeightRecord.load(str(tmp_path / 'w.json'))
    axis, = plot_weights(again).axes
    rows = record.logit if kind == 'logits' else record.feature
    assert axis.get_title() == f'distillation of {kind}'
    np.testing.assert_allclose(
        axis.get_lines()[0].get_ydata(), [row[0] for row in rows])


def test_bars_are_the_weights_of_each_image():
    images = [np.full((4, 4, 3), i * 30, np.uint8) for i in range(7)]
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 7)
    figure = draw_samples(images, weights, ['a', 'b', 'c'],
                          [f'label {i}' for i in range(7)], dict(c='bad'))
    uppers = [a for a in figure.axes if a.images]
    assert [a.get_title() for a in uppers] == \
        [f'label {i}' for i in range(7)]
    for i, axis in enumerate(uppers):
        assert np.array_equal(axis.images[0].get_array(), images[i])
    lowers = [a for a in figure.axes if a.patches]
    assert len(lowers) == 7
    for axis, row in zip(lowers, weights):
        np.testing.assert_allclose([p.get_height() for p in axis.patches],
                                   row)
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ['a', 'b', 'c (bad)']


@pytest.mark.parametrize('count', [1, 6, 7])
def test_any_number_of_images(count):
    images = [np.zeros((4, 4, 3), np.uint8)] * count
    array = to_array(
        draw_samples(images, np.full((count, 2), .5), ['a', 'b']))
    assert array.dtype == np.uint8 and array.shape[2] == 3
    assert array.std() > 0


def test_one_point_and_an_empty_record_can_be_drawn(record):
    record.iterations, record.logit, record.feature = [1], [[1, 0, 0]], \
        [[1, 0, 0]]
    assert to_array(plot_weights(record)).std() > 0
    assert to_array(plot_weights(WeightRecord(['a']))).std() > 0
