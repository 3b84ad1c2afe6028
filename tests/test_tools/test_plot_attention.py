"""Pictures of foreground, attention and probabilities, on COCO's format."""

import numpy as np
import plot_attention as tool
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

import mmkd_rl
from mmkd_rl.utils.configs import load_config
from tests.test_tools.test_compare_predictions import (  # noqa: F401
    refused,
    runs,
    save,
)


@pytest.fixture(scope='module')
def distilled(runs, tmp_path_factory):  # noqa: F811
    """Function of a kind of data: the run of a distilled model."""
    made = {}

    def of_kind(kind):
        if kind not in made:
            root, folder = runs(kind), tmp_path_factory.mktemp('run') / 'c'
            plain = load_config(str(root / 'a' / 'dumped.py'))
            cfg = mmkd_rl.distill(plain, 'aver', [
                f'{name}={root}/{name}/dumped.py:{root}/{name}/iter_2.pth'
                for name in 'ab'])
            init_default_scope(cfg.default_scope)
            torch.manual_seed(2)
            save(folder, cfg, MODELS.build(cfg.model))
            made[kind] = folder
        return made[kind]

    return of_kind


def panels(figure):
    """Titles, and the arrays of the first row's maps."""
    axes = figure.axes
    titles = [axis.get_title() for axis in axes if axis.get_title()]
    maps = [axis.images[1].get_array() for axis in axes[:len(titles)]
            if len(axis.images) > 1]
    return titles, maps


def test_where_losses_and_teachers_look(distilled):
    run = tool.read_run(f'run={distilled("coco")}')
    figure = tool.draw(run, [0, 1], 1, 0)
    titles, (foreground, *attentions) = panels(figure)
    assert titles == ['objects', 'foreground', 'a: attention', 'b: attention']
    assert len(figure.axes) == 2 * 4
    # Foreground is in the boxes, in the coordinates of the picture.
    axis = figure.axes[0]
    height, width = axis.images[0].get_array().shape[:2]
    left, right, bottom, top = figure.axes[1].images[1].get_extent()
    assert left == top == 0 and right >= width and bottom >= height
    inside = np.zeros(foreground.shape, bool)
    rows, columns = foreground.shape
    for box in axis.patches:
        x, y = box.get_xy()
        inside[int(y * rows / bottom):
               int(np.ceil((y + box.get_height()) * rows / bottom)),
               int(x * columns / right):
               int(np.ceil((x + box.get_width()) * columns / right))] = True
    assert len(axis.patches) and inside.any() and not inside.all()
    assert ((np.asarray(foreground) > 0) == inside).all()
    # A mean of 1 over the cells of the image.
    for attention in attentions:
        assert attention.max() > 1 > attention.min() >= 0
    assert not np.array_equal(*attentions)
    coarser, _ = panels(tool.draw(run, None, 1, 1))
    assert coarser == titles


@pytest.mark.parametrize('kind, arguments, message', [
    ('coco', ('--level', 9), "--level 9: teacher 'a' has 2 levels, from 0"),
    ('coco', ('--indices', 99), '--indices must be in 0..'),
    ('cityscapes', (), 'give the run of a detector with DetectionTask'),
    ('coco', ('-o', '/no/such/folder/x.png', '--images', 1),
     "--out '/no/such/folder/x.png'")])
def test_what_cannot_be_drawn(distilled, capsys, kind, arguments, message):
    assert message in refused(capsys, distilled(kind), *arguments,
                              main=tool.main)


def test_a_folder_that_is_not_there(capsys, tmp_path):
    assert 'is no folder; give the work directory of a run, or CONFIG:' in \
        refused(capsys, tmp_path / 'x', main=tool.main)


def test_a_run_without_teachers(runs, capsys):  # noqa: F811
    assert 'its config has no teachers' in refused(
        capsys, runs('coco') / 'a', main=tool.main)
