"""Subsets of classes have the right samples and new labels."""

import numpy as np
import pytest
from mmengine.dataset import RepeatDataset
from mmengine.registry import DATASETS as ROOT
from mmpretrain.datasets import CIFAR100, BaseDataset, MultiLabelDataset

from mmkd_rl.datasets import ClassSubset
from mmkd_rl.registry import DATASETS

NAMES = ('ant', 'bee', 'cat', 'dog', 'eel')


@DATASETS.register_module(force=True)
class NumberedDataset(BaseDataset):
    """Sample i has class 4 - i % 5 and the number i as its image."""

    METAINFO = dict(classes=NAMES)

    def __init__(self, size=20, **kwargs):
        self.size = size
        super().__init__('', **kwargs)

    def load_data_list(self):
        return [
            dict(img=np.full((2, 2, 3), i, np.uint8), gt_label=4 - i % 5)
            for i in range(self.size)
        ]


PACK = [dict(type='mmpretrain.PackInputs')]


def numbered(**kwargs):
    return dict(type='mmkd_rl.NumberedDataset', **kwargs)


def shown(subset):
    """(number, label) of each sample, as the pipeline packs it."""
    return [(int(s['inputs'][0, 0, 0]), s['data_samples'].gt_label.item())
            for s in (subset[i] for i in range(len(subset)))]


@pytest.mark.parametrize('chosen', [
    dict(classes=['dog', 'ant']),
    dict(classes=[3, 0]),
    dict(classes=['dog', 0]),
])
@pytest.mark.parametrize('serialize', [True, False])
def test_samples_of_the_classes_in_the_order_given(chosen, serialize):
    subset = ClassSubset(
        numbered(pipeline=PACK, serialize_data=serialize), **chosen)
    # 4 - i % 5 is 3 for i = 1, 6, ... and 0 for i = 4, 9, ...
    want = [(1, 0), (4, 1), (6, 0), (9, 1), (11, 0), (14, 1), (16, 0),
            (19, 1)]
    assert shown(subset) == want
    assert subset.metainfo['classes'] == subset.CLASSES == ('dog', 'ant')
    assert [subset.get_cat_ids(i) for i in range(8)] == \
        [[label] for _, label in want]
    assert subset.get_gt_labels().tolist() == [label for _, label in want]
    infos = [subset.get_data_info(i) for i in range(8)]
    assert [i['gt_label'] for i in infos] == [label for _, label in want]
    assert [subset.get_ori_index(i) for i in range(8)] == \
        [number for number, _ in want]


@pytest.mark.parametrize('chosen, classes', [
    (dict(classes='first-half'), ('ant', 'bee')),
    (dict(classes='second-half'), ('cat', 'dog', 'eel')),
    (dict(without=['bee', 4]), ('ant', 'cat', 'dog')),
])
def test_halves_and_what_is_left_out(chosen, classes):
    subset = ClassSubset(numbered(pipeline=PACK), **chosen)
    assert subset.metainfo['classes'] == classes
    assert len(subset) == 4 * len(classes)
    for number, label in shown(subset):
        assert NAMES[4 - number % 5] == classes[label]


def test_labels_may_stay():
    subset = ClassSubset(
        numbered(pipeline=PACK), without=['dog'], relabel=False)
    assert len(subset) == 16
    assert all(label == 4 - number % 5 != 3
               for number, label in shown(subset))
    assert subset.metainfo['classes'] == NAMES


def test_all_classes_in_their_order_change_nothing():
    whole = ROOT.build(numbered(pipeline=PACK))
    assert shown(ClassSubset(whole, list(NAMES))) == shown(whole)


def test_the_data_set_that_came_is_left_alone():
    whole = ROOT.build(numbered(pipeline=PACK))
    before = shown(whole)
    first = ClassSubset(whole, ['dog'])
    second = ClassSubset(whole, ['eel', 'dog'])
    assert shown(whole) == before
    assert {label for _, label in shown(first)} == {0}
    assert {label for _, label in shown(second)} == {0, 1}


def test_nothing_is_loaded_before_it_must_be(monkeypatch):
    calls = []
    load = NumberedDataset.load_data_list
    monkeypatch.setattr(
        NumberedDataset, 'load_data_list', lambda self:
        (calls.append(1), load(self))[1])
    subset = DATASETS.build(
        dict(
            type='mmkd_rl.ClassSubset',
            dataset=numbered(lazy_init=True, pipeline=PACK),
            classes=['cat'],
            lazy_init=True))
    assert not calls and subset.metainfo['classes'] == ('cat', )
    assert 'not loaded' in repr(subset)
    subset.full_init()
    subset.full_init()
    assert len(calls) == 1 and len(subset) == 4
    assert '4' in repr(subset)
    with pytest.raises(ValueError, match="no class 'cow'"):
        ClassSubset(numbered(lazy_init=True), ['cow'], lazy_init=True)
    assert len(calls) == 1


def test_inside_a_wrapper_of_mmengine():
    repeated = RepeatDataset(
        dict(
            type='mmkd_rl.ClassSubset',
            dataset=numbered(pipeline=PACK),
            classes=['cat']),
        times=2)
    assert len(repeated) == 8
    assert repeated.metainfo['classes'] == ('cat', )
    assert [s for s in shown(repeated)][:4] == [s for s in
                                                shown(repeated)][4:]


def test_on_the_digits():
    subset = ClassSubset(
        dict(type='mmkd_rl.DigitsDataset', split='test', indices=50),
        without=['three'])
    names = subset.metainfo['classes']
    assert len(names) == 9 and 'three' not in names
    whole = subset.dataset
    for i in range(len(subset)):
        old = whole.get_data_info(i)['gt_label']
        assert old != 3
        assert subset[i]['gt_label'] == old - (old > 3)


def test_on_mmpretrains_cifar100(monkeypatch):
    images = np.arange(200, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 4, 4, 3), np.uint8)
    monkeypatch.setattr(
        CIFAR100, 'load_data_list', lambda self: [
            dict(img=image, gt_label=np.int64(i % 100))
            for i, image in enumerate(images)
        ])
    cifar = dict(
        type='mmpretrain.CIFAR100', data_root='none', pipeline=PACK)
    first = ClassSubset(cifar, 'first-half')
    second = ClassSubset(cifar, 'second-half')
    assert len(first) == len(second) == 100
    assert first.metainfo['classes'] + second.metainfo['classes'] == \
        CIFAR100.METAINFO['classes']
    assert all(number % 100 == label for number, label in shown(first))
    assert all(number % 100 == label + 50 for number, label in shown(second))


@pytest.mark.parametrize('kwargs, message', [
    (dict(), 'needs classes .* or without .* classes=None'),
    (dict(classes=['ant'], without=['bee']), 'needs classes .* or without'),
    (dict(classes=['cot']), r"classes: no class 'cot'.*\['cat'\]"),
    (dict(classes=[5]), 'classes: no class 5; .* from 0 to 4'),
    (dict(classes=[-1]), 'classes: no class -1'),
    (dict(classes=[True]), 'classes: no class True'),
    (dict(without=['zebra']), "without: no class 'zebra'"),
    (dict(classes=['ant', 0]), r'classes: class 0 \(number 0\) .* twice'),
    (dict(classes=[]), r'classes must be a list .* got \[\]'),
    (dict(classes=3), 'classes must be a list .* got 3'),
    (dict(classes='third'), "first-half.*second-half.*got 'third'"),
    (dict(without='ant'), "without must be a list .* got 'ant'"),
    (dict(without=list(NAMES)), 'keeps none of the 5 classes'),
])
def test_bad_classes_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ClassSubset(numbered(), **kwargs)


def test_data_sets_that_will_not_do():
    with pytest.raises(ValueError, match=r'none of the 2 samples .* \[0\]'):
        ClassSubset(numbered(size=2), ['ant'])
    with pytest.raises(TypeError, match="mmengine's BaseDataset.* got list"):
        ClassSubset([1, 2], ['ant'])
    inner = ClassSubset(numbered(), ['ant', 'bee'])
    with pytest.raises(TypeError, match='got ClassSubset; if you use'):
        ClassSubset(inner, ['ant'])
    nameless = ROOT.build(numbered())
    nameless._metainfo = {}
    with pytest.raises(ValueError, match='NumberedDataset has no class name'):
        ClassSubset(nameless, [0])


def test_one_class_a_sample(tmp_path):
    (tmp_path / 'a.json').write_text(
        '{"metainfo": {"categories": [{"category_name": "a", "id": 0}, '
        '{"category_name": "b", "id": 1}]}, "data_list": '
        '[{"img_path": "x.png", "gt_label": [0, 1]}]}')
    several = MultiLabelDataset(str(tmp_path / 'a.json'))
    with pytest.raises(ValueError, match=r'sample 0 .* classes \[0, 1\]'):
        ClassSubset(several, ['a'])


@pytest.mark.parametrize('indices, expected', [
    (2, [0, 1]), (-2, [-2, -1]), ([3, 1], [3, 1]),
])
def test_a_part_of_the_part(indices, expected):
    """MMPretrain's KFoldDataset makes a subset of the subset."""
    whole = ClassSubset(numbered(pipeline=PACK), classes=[3, 1])
    part = whole.get_subset(indices)
    assert len(part) == 2
    for i, j in enumerate(expected):
        j %= len(whole)
        assert part.get_ori_index(i) == whole.get_ori_index(j)
        assert part.get_data_info(i)['gt_label'] == \
            whole.get_data_info(j)['gt_label']
