"""Drawing of objects and class maps, and which objects count as found."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from mmkd_rl.visualization.common import to_array
from mmkd_rl.visualization.predictions import (
    ClassMap,
    Instances,
    match,
    share_right,
)
from mmkd_rl.visualization.scenes import (
    MOST_LABELS,
    class_colours,
    draw_scenes,
)

CLASSES = ('cat', 'dog', 'cow')
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
IMAGE = np.full((40, 60, 3), 200, np.uint8)


def instances(*rows, scores=None, **more):
    """Objects from rows of a class and the corners of a box."""
    rows = np.array(rows, float).reshape(-1, 5)
    return Instances(
        rows[:, 0].astype(int), rows[:, 1:],
        None if scores is None else np.array(scores, float), **more)


TRUTH = instances((0, 0, 0, 10, 10), (1, 20, 20, 40, 40), (1, 50, 0, 60, 10))


def draw(*columns, images=(IMAGE, ), **options):
    """Panels by column title (a, b, ...), one row, and the legend's texts."""
    figure = draw_scenes(
        images, dict(zip('abc', ([c] for c in columns))), CLASSES, COLOURS,
        **options)
    legend = [t.get_text() for t in figure.legends[0].get_texts()] \
        if figure.legends else []
    return figure.axes, legend


def boxes(axis):
    """Corners, colour and line style of the rectangles with an edge."""
    return [((*p.get_xy(), p.get_x() + p.get_width(),
              p.get_y() + p.get_height()), p.get_edgecolor()[:3],
             p.get_linestyle()) for p in axis.patches
            if isinstance(p, Rectangle) and not p.get_hatch()]


def hatched(axis):
    return [tuple(np.array(p.get_xy()) + .5) for p in axis.patches
            if p.get_hatch()]


# ---- objects -------------------------------------------------------------


def test_boxes_are_the_objects_in_their_classes_colours():
    (axis, ), legend = draw(TRUTH)
    assert boxes(axis) == [
        ((-.5, -.5, 9.5, 9.5), (1, 0, 0), '-'),
        ((19.5, 19.5, 39.5, 39.5), (0, 1, 0), '-'),
        ((49.5, -.5, 59.5, 9.5), (0, 1, 0), '-')]
    assert legend == ['cat', 'dog']
    assert not axis.texts and np.array_equal(
        axis.images[0].get_array(), IMAGE)


def test_a_prediction_shows_scores_and_what_is_wrong_or_missed():
    found = instances((1, 21, 21, 40, 40), (0, 50, 0, 60, 10),
                      scores=[.87, .5])
    (true, axis), legend = draw(TRUTH, found)
    assert [(style, colour) for _, colour, style in boxes(axis)] == [
        ('--', (1, 0, 0)), ('-', (0, 1, 0))]
    assert [t.get_text() for t in axis.texts] == ['50%', '87%']
    assert axis.get_xlabel() == '1 of 3 found, 1 wrong'
    assert hatched(axis) == [(0, 0), (50, 0)] and not hatched(true)
    assert (true.get_title(), axis.get_title()) == ('a', 'b')
    assert true.get_xlabel() == ''
    assert legend == ['cat', 'dog', 'wrong, or found twice', 'missed']


def test_names_are_written_if_wanted():
    found = instances((2, 1, 1, 9, 9), scores=[.87])
    (_, axis), _ = draw(TRUTH, found, names=True)
    assert [t.get_text() for t in axis.texts] == ['cow  87%']


@pytest.mark.parametrize('count, labels', [
    (MOST_LABELS, MOST_LABELS), (MOST_LABELS + 1, 0)])
def test_many_objects_have_no_labels(count, labels):
    found = instances(*[(0, n, n, n + 9, n + 9) for n in range(count)],
                      scores=[.5] * count)
    (_, axis), _ = draw(TRUTH, found)
    assert len(axis.texts) == labels and len(boxes(axis)) == count


def test_masks_are_coloured_and_crowds_are_not():
    masks = np.zeros((2, 40, 60), bool)
    masks[0, :10, :10] = masks[1, 20:] = True
    (axis, ), legend = draw(instances(
        (0, 0, 0, 10, 10), (1, 0, 20, 60, 40), masks=masks,
        crowds=np.array([False, True])))
    shown = axis.images[0].get_array()
    assert (shown[:10, :10] == [241, 50, 50]).all()  # 50 + .75 * 255
    assert (shown[20:] == 140).all()
    assert [style for _, _, style in boxes(axis)] == ['-', ':']
    assert legend[-1].startswith('crowd')


def test_no_object_at_all():
    (_, axis), _ = draw(TRUTH, instances(scores=[]))
    assert axis.get_xlabel() == '0 of 3 found, 0 wrong'
    assert len(hatched(axis)) == 3
    (true, axis), _ = draw(instances(), instances(scores=[]))
    assert axis.get_xlabel() == '0 of 0 found, 0 wrong'


@pytest.mark.parametrize('more', [
    dict(scores=[.5, .5]), dict(masks=np.zeros((2, 4, 4), bool)),
    dict(crowds=np.zeros(3, bool))])
def test_attributes_must_fit(more):
    with pytest.raises(ValueError, match=f'1 labels, but [23] {[*more][0]}'):
        instances((0, 0, 0, 1, 1), **more)
    with pytest.raises(ValueError, match=r'2 labels need boxes \[2, 4\]'):
        Instances(np.zeros(2, int), np.zeros((3, 4)))


# ---- what counts as found ------------------------------------------------


def test_the_truth_finds_itself():
    again = Instances(TRUTH.labels, TRUTH.boxes, np.ones(3))
    found = match(again, TRUTH)
    assert found.right.all() and not found.missed.any()


@pytest.mark.parametrize('width, right', [(5, True), (4.9, False)])
def test_half_the_area_is_enough(width, right):
    found = match(instances((0, 0, 0, width, 10), scores=[.9]), TRUTH)
    assert found.right[0] == right == (not found.missed[0])


def test_an_object_is_found_once_by_the_most_certain():
    found = match(instances((0, 0, 0, 10, 9), (0, 0, 0, 10, 10),
                            scores=[.9, .8]), TRUTH)
    assert found.right.tolist() == [True, False] == (~found.wrong).tolist()


def test_another_class_is_wrong():
    found = match(instances((2, 0, 0, 10, 10), scores=[.9]), TRUTH)
    assert found.wrong.all() and found.missed.all()


def test_a_crowd_counts_neither_way():
    truth = instances((0, 0, 0, 40, 40), crowds=np.array([True]))
    found = match(instances(
        (0, 5, 5, 10, 10), (0, 15, 15, 20, 20), (1, 5, 5, 10, 10),
        (0, 36, 36, 60, 60), scores=[.9] * 4), truth)
    assert found.ignored.tolist() == [True, True, False, False]
    assert found.wrong.tolist() == [False, False, True, True]
    assert not found.right.any() and not found.missed.any()
    (_, axis), _ = draw(truth, instances((0, 5, 5, 10, 10), scores=[.9]))
    assert axis.get_xlabel() == '0 of 0 found, 0 wrong'


# ---- maps ----------------------------------------------------------------


def test_maps_are_classes_over_the_grey_image():
    labels = np.full((40, 60), 1)
    labels[0], labels[1] = 255, -1
    (image, true, axis), legend = draw(
        ClassMap(labels), ClassMap(labels * 0 + 2))
    assert (image.images[0].get_array() == IMAGE).all()
    shown = true.images[0].get_array()
    assert (shown[:2] == 50).all()  # dark: no class
    assert (shown[2:] == [60, 238, 60]).all()  # .3 * 200, + .7 * 255
    assert (axis.images[0].get_array() == [60, 60, 238]).all()
    assert legend == ['dog', 'cow', 'no class']
    assert axis.get_xlabel() == '0.0% of the pixels right'
    assert true.get_xlabel() == ''


def test_pixels_without_a_class_do_not_count():
    truth = np.array([[0, 1, 255, -1]])
    assert share_right(ClassMap(np.array([[0, 2, 255, 2]])),
                       ClassMap(truth), 3) == .5
    assert share_right(ClassMap(truth), ClassMap(truth * 0 + 255), 3) == 1


# ---- the whole picture ---------------------------------------------------


def test_rows_are_images_of_any_size():
    images = [IMAGE, np.zeros((80, 20, 3), np.uint8)]
    maps = [ClassMap(image[..., 0] * 0) for image in images]
    figure = draw_scenes(images, dict(a=maps, b=maps), CLASSES, COLOURS)
    assert [a.images[0].get_array().shape[:2] for a in figure.axes] == [
        (40, 60)] * 3 + [(80, 20)] * 3
    assert [a.get_title() for a in figure.axes] == [
        'image', 'a', 'b', '', '', '']
    assert to_array(figure).std() > 0
    with pytest.raises(ValueError, match="'b' has 1 images instead of 2"):
        draw_scenes(images, dict(a=maps, b=maps[:1]), CLASSES, COLOURS)


def test_notes_stand_below_their_panels():
    images, maps = [IMAGE] * 2, [ClassMap(IMAGE[..., 0] * 0)] * 2
    figure = draw_scenes(images, dict(a=maps, b=[*maps]), CLASSES, COLOURS,
                         notes=dict(b=['x 60%\ny 40%', '']))
    right = '100.0% of the pixels right'
    assert [a.get_xlabel() for a in figure.axes] == [
        '', '', f'{right}\nx 60%\ny 40%', '', '', right]
    plain = draw_scenes(images, dict(a=maps, b=maps), CLASSES, COLOURS)
    assert figure.get_figheight() > plain.get_figheight()


@pytest.mark.parametrize('count', [1, 10, 20, 80, 171])
def test_classes_have_colours_of_their_own(count):
    assert len(np.unique(class_colours(count), axis=0)) > .95 * count
    palette = [[n, n, n] for n in range(count)]
    assert np.array_equal(class_colours(count, palette), palette)
    # COCO's palette of 80 classes for other classes
    assert np.array_equal(class_colours(count, [[0, 0, 0]] * 200),
                          class_colours(count))


def test_few_classes_have_matplotlibs_colours():
    assert np.array_equal(
        class_colours(3) / 255, [to_rgb(f'C{n}') for n in range(3)])
