"""Rendered digits: determined by the seed, disjoint splits, exact label
noise."""

import numpy as np
import pytest

from mmkd_rl.datasets import DigitsDataset, digits
from mmkd_rl.datasets.digits import corrupt_labels, load_scans
from mmkd_rl.registry import DATASETS


def images(dataset):
    return np.stack([dataset[i]['img'] for i in range(len(dataset))])


def column(dataset, key):
    return np.array([dataset[i][key] for i in range(len(dataset))])


@pytest.fixture
def few(monkeypatch):
    """Use every tenth scan, in tests that do not depend on their number."""

    def load_few(*args):
        return tuple(part[::10] for part in load_scans(*args))

    monkeypatch.setattr(digits, 'load_scans', load_few)


@pytest.fixture(scope='module')
def test_split():
    return DigitsDataset('test')


def test_splits_share_no_scan_and_keep_the_classes_even():
    train, _, train_labels = load_scans('train')
    test, _, test_labels = load_scans('test')
    assert not set(train) & set(test)
    assert sorted([*train, *test]) == list(range(1797))
    shares = np.bincount(test_labels) / np.bincount(
        np.concatenate([train_labels, test_labels]))
    assert np.all(np.abs(shares - 1 / 3) < .01)


def test_dataset_shows_only_scans_of_its_split(test_split):
    assert set(column(test_split, 'original')) == set(load_scans('test')[0])


def test_same_seed_same_pixels_other_seed_other_pixels(few):
    once = images(DigitsDataset('test'))
    assert np.array_equal(once, images(DigitsDataset('test')))
    other = images(DigitsDataset('test', seed=1))
    assert np.all((once != other).any((1, 2, 3)))


def test_more_renderings_do_not_move_the_first(few):
    once = DigitsDataset('test')
    twice = DigitsDataset('test', renderings=2)
    assert len(twice) == 2 * len(once) == 2 * 60
    assert np.array_equal(images(twice)[::2], images(once))
    assert not np.array_equal(images(twice)[1::2], images(once))
    assert np.array_equal(
        column(twice, 'gt_label')[::2], column(once, 'gt_label'))


def test_samples_are_what_mmpretrain_packs(test_split):
    packed = DATASETS.build(
        dict(
            type='mmkd_rl.DigitsDataset',
            split='test',
            pipeline=[dict(type='mmpretrain.PackInputs')]))[0]
    assert packed['inputs'].shape == (3, 32, 32)
    assert packed['data_samples'].gt_label.item() == \
        test_split[0]['gt_label']


def test_images_are_not_flat(test_split):
    # An image without its digit would have only paper and noise.
    ink = images(test_split).astype(float).mean(-1)
    high, low = np.percentile(ink, [95, 30], axis=(1, 2))
    assert np.mean(high - low > 30) > .9


@pytest.mark.parametrize('fraction', [0., .3, .5, .999])
def test_label_noise_is_exact_and_always_wrong(fraction):
    labels = load_scans('train')[2]
    noisy = corrupt_labels(labels, fraction, seed=3)
    assert (noisy != labels).sum() == round(fraction * len(labels))
    assert noisy.min() >= 0 and noisy.max() <= 9
    assert np.array_equal(noisy, corrupt_labels(labels, fraction, seed=3))
    if 0. < fraction < .9:
        assert not np.array_equal(noisy,
                                  corrupt_labels(labels, fraction, seed=4))


def test_label_noise_leaves_images_alone_and_hits_whole_scans(few):
    noisy = DigitsDataset('train', renderings=2, label_noise=.5)
    clean = DigitsDataset('train', renderings=2)
    assert np.array_equal(images(noisy), images(clean))
    wrong = column(noisy, 'gt_label') != column(clean, 'gt_label')
    assert wrong.sum() == 2 * round(.5 * 120)
    assert np.array_equal(wrong[::2], wrong[1::2])


@pytest.mark.parametrize('bad, message', [
    (dict(split='valid'), "split .*'train', 'test'.*'valid'"),
    (dict(split='train', renderings=0), 'renderings must be >= 1, got 0'),
    (dict(split='train', label_noise=1.), r'label_noise .*\[0, 1\), got 1.0'),
    (dict(split='train', label_noise=-.1), r'label_noise .* got -0.1'),
    (dict(split='test', label_noise=.1), 'label_noise: 0.1 .*"train" only'),
])
def test_bad_arguments_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        DigitsDataset(**bad)
