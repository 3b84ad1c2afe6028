"""Tasks on the same images with other labels: groups of classes, rotations."""

import random
from collections import Counter

import numpy as np
import pytest
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES

from mmkd_rl.datasets import (
    CIFAR100_COARSE,
    CIFAR100_SUPERCLASSES,
    DigitsDataset,
    MapLabels,
    RotateTask,
)
from mmkd_rl.registry import TRANSFORMS


@pytest.mark.parametrize('mapping', [[1, 1, 0], {0: 1, 1: 1, 2: 0}])
def test_a_label_becomes_what_the_mapping_says(mapping):
    transform = TRANSFORMS.build(
        dict(type='mmkd_rl.MapLabels', mapping=mapping))
    after = [transform(dict(gt_label=np.int64(i)))['gt_label']
             for i in range(3)]
    assert after == [1, 1, 0]
    assert repr(transform) == 'MapLabels(3 labels to 2)'


def test_labels_of_pixels():
    """All at once: a new label is not mapped again. The given map stays."""
    before = np.array([[0, 1, 2], [2, 2, 11]], np.uint8)
    after = MapLabels({0: 1, 1: 2, 2: 0, 11: 255})(
        dict(gt_seg_map=before))['gt_seg_map']
    assert after.tolist() == [[1, 2, 0], [0, 0, 255]]
    assert after.dtype == np.uint8 and before[0, 0] == 0
    with pytest.raises(ValueError, match='a label is 11'):
        MapLabels([0, 1, 2])(dict(gt_seg_map=before))


@pytest.mark.parametrize('bad, message', [
    ('cifar10', "mapping must be .*'cifar100_coarse'.*got 'cifar10'"),
    ({}, r'mapping must have a label, got \{\}'),
    ([], r'mapping must have a label, got \[\]'),
    (3, 'mapping must be .* got 3'),
    ([0, -1], r'each a whole number >= 0 or .* got \[0, -1\]'),
    ({'a': 0}, r"must be .* got \{'a': 0\}"),
    ([0, True], r'must be .* got \[0, True\]'),
])
def test_a_bad_mapping_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        MapLabels(bad)


@pytest.mark.parametrize('mapping, label, message', [
    ([1, 0], 2, r'MapLabels maps \[0, 1\], and a label is 2'),
    ({0: 0, 2: 1}, 1, r'MapLabels maps \[0, 2\], and a label is 1'),
    ('cifar100_coarse', 100, '100 labels from 0 to 99, and a label is 100'),
])
def test_a_label_that_is_not_mapped_is_named(mapping, label, message):
    with pytest.raises(ValueError, match=message):
        MapLabels(mapping)(dict(gt_label=label))


def test_superclasses_are_five_of_mmpretrains_classes_each():
    assert list(CIFAR100_SUPERCLASSES) == sorted(CIFAR100_SUPERCLASSES)
    assert set(Counter(CIFAR100_COARSE).values()) == {5}
    assert len(CIFAR100_COARSE) == 100 and max(CIFAR100_COARSE) == 19
    coarse = MapLabels('cifar100_coarse').mapping
    for number, fines in enumerate(CIFAR100_SUPERCLASSES.values()):
        for fine in fines:
            assert coarse[CIFAR100_CATEGORIES.index(fine)] == number


def test_the_first_coarse_labels_are_those_of_the_files():
    # apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle
    assert CIFAR100_COARSE[:8] == (4, 1, 14, 8, 0, 6, 7, 7)


IMAGE = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)


@pytest.mark.parametrize('image', [IMAGE, IMAGE[..., 0]])
def test_a_rotation_is_undone_by_its_label(image):
    transform = TRANSFORMS.build(dict(type='mmkd_rl.RotateTask', draw=False))
    for index in range(8):
        sample = transform(dict(img=image, gt_label=7, sample_idx=index))
        assert sample['gt_label'] == index % 4
        turned = sample['img']
        assert turned.flags.c_contiguous
        # A rotation by 90 degrees to the left turns the top row into the left
        # column, read from below.
        for _ in range(sample['gt_label']):
            turned = np.array([[turned[4 - x, y] for x in range(5)]
                               for y in range(5)])[:, ::1]
        assert np.array_equal(turned, image)


def test_rotations_are_drawn_evenly_and_by_the_seed():
    transform = RotateTask()

    def draw():
        random.seed(0)
        return [transform(dict(img=IMAGE))['gt_label'] for _ in range(400)]

    drawn = draw()
    assert drawn == draw()
    # 100 of each are expected; the standard deviation is 9
    assert all(60 < Counter(drawn)[k] < 140 for k in range(4))


def test_a_data_set_numbers_its_samples_for_the_test():
    data = DigitsDataset('test', pipeline=[
        dict(type='mmkd_rl.RotateTask', draw=False),
        dict(type='mmpretrain.PackInputs')
    ], indices=6)
    labels = [data[i]['data_samples'].gt_label.item() for i in range(6)]
    assert labels == [0, 1, 2, 3, 0, 1]
    assert data[1]['inputs'].shape == (3, 32, 32)


def test_what_rotation_cannot_do_is_said():
    with pytest.raises(TypeError, match="draw must be True .* got 'test'"):
        RotateTask('test')
    with pytest.raises(ValueError, match='square images only, got .* 4x5'):
        RotateTask()(dict(img=IMAGE[:4]))
    with pytest.raises(ValueError, match='needs sample_idx'):
        RotateTask(draw=False)(dict(img=IMAGE))
