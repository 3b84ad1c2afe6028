import numpy as np
import pytest

from mmkd_rl.datasets import RandomLabels


def draw(transform, n=2000, label=3):
    return np.array([
        transform.transform(dict(sample_idx=i, gt_label=label))['gt_label']
        for i in range(n)
    ])


def test_labels_say_nothing_and_stay():
    """All classes are equally frequent, and labels are the same in each
    epoch."""
    labels = draw(RandomLabels(5))
    counts = np.bincount(labels, minlength=5)
    assert len(counts) == 5
    # 400 of each are expected; within five standard deviations of a binomial.
    assert np.abs(counts - 400).max() < 5 * np.sqrt(2000 * .2 * .8)
    assert (labels == draw(RandomLabels(5), label=0)).all()
    assert (labels != draw(RandomLabels(5, seed=1))).any()


def test_bad_input():
    for wrong in (1, 2.5):
        with pytest.raises(ValueError, match='RandomLabels.num_classes'):
            RandomLabels(wrong)
    with pytest.raises(ValueError, match='sample_idx'):
        RandomLabels(5).transform(dict(gt_label=0))
