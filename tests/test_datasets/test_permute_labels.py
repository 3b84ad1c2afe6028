"""The permutation of classes is one to one and has no fixed point."""

import pytest

from mmkd_rl.datasets import PermuteLabels


@pytest.mark.parametrize('classes, seed', [(2, 0), (5, 0), (100, 3)])
def test_one_to_one_and_nobody_stays(classes, seed):
    transform = PermuteLabels(classes, seed)
    after = [transform(dict(gt_label=c))['gt_label'] for c in range(classes)]
    assert sorted(after) == list(range(classes))
    assert all(a != c for c, a in enumerate(after))
    assert after == PermuteLabels(classes, seed).permutation


def test_the_seed_counts():
    assert PermuteLabels(100, 0).permutation != PermuteLabels(
        100, 1).permutation


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match='num_classes must be >= 2, got 1'):
        PermuteLabels(1)
    with pytest.raises(ValueError, match=r'maps \[0, .*4\], and .* is 7'):
        PermuteLabels(5)(dict(gt_label=7))
