"""Masks, boxes and class maps of scenes agree; scenes are written completely
or not at all."""

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmkd_rl.datasets import scenes
from mmkd_rl.datasets.digits import CLASSES, load_scans
from mmkd_rl.datasets.scenes import compose, write_scenes


def files(root):
    return {
        p.relative_to(root): p.read_bytes()
        for p in root.rglob('*') if p.is_file()
    }


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'scenes'
    assert write_scenes(root, train=6, test=3)
    return root


@pytest.mark.parametrize('split, number', [('train', 6), ('test', 3)])
def test_boxes_masks_and_class_maps_agree(root, split, number):
    coco = COCO(str(root / 'annotations' / f'{split}.json'))
    assert len(coco.imgs) == number
    for image in coco.imgs.values():
        annotations = coco.imgToAnns[image['id']]
        assert 1 <= len(annotations) <= 6
        expected = np.zeros((128, 128), int)
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert not expected[mask].any(), 'masks overlap'
            expected[mask] = annotation['category_id'] + 1
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation['bbox']
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert annotation['area'] == mask.sum() > 0
        class_map = cv2.imread(
            str(root / 'masks' / split / image['file_name']),
            cv2.IMREAD_UNCHANGED)
        assert np.array_equal(class_map, expected)


def test_mmdetection_reads_them(root):
    from mmdet.datasets import CocoDataset
    dataset = CocoDataset(
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[
            dict(type='mmdet.LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='mmdet.PackDetInputs')
        ])
    assert len(dataset) == 6
    sample = dataset[2]
    instances = sample['data_samples'].gt_instances
    assert sample['inputs'].shape == (3, 128, 128)
    coco = COCO(str(root / 'annotations/train.json'))
    assert instances.labels.tolist() == \
        [a['category_id'] for a in coco.imgToAnns[2]]
    assert instances.masks.masks.sum() == \
        sum(a['area'] for a in coco.imgToAnns[2])


def test_mmsegmentation_reads_them(root):
    from mmseg.datasets import BaseSegDataset
    dataset = BaseSegDataset(
        data_root=str(root),
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo=dict(classes=('background', *CLASSES)),
        data_prefix=dict(img_path='images/test', seg_map_path='masks/test'),
        pipeline=[
            dict(type='mmseg.LoadImageFromFile'),
            dict(type='mmseg.LoadAnnotations'),
            dict(type='mmseg.PackSegInputs')
        ])
    assert len(dataset) == 3
    class_map = dataset[0]['data_samples'].gt_sem_seg.data
    assert class_map.shape == (1, 128, 128)
    assert 0 < class_map.max() <= 10


def test_scenes_use_scans_of_their_split_only(tmp_path, monkeypatch):
    shown = {}

    def spy(rng, scans, labels, size):
        shown.setdefault(len(scans), []).append(scans)
        return compose(rng, scans, labels, size)

    monkeypatch.setattr(scenes, 'compose', spy)
    write_scenes(tmp_path / 'scenes', train=2, test=1)
    for split, number in (('train', 2), ('test', 1)):
        own = load_scans(split)[1]
        assert [np.array_equal(s, own)
                for s in shown.pop(len(own))] == [True] * number
    assert not shown


def test_no_digit_is_mostly_hidden():
    _, scans, labels = load_scans('train')
    for seed in range(5):
        _, masks, classes = compose(
            np.random.default_rng(seed), scans, labels)
        assert len(masks) == len(classes) >= 3
        assert masks.sum((1, 2)).min() >= .7 * 40


def test_same_arguments_same_files_and_no_second_rendering(
        root, tmp_path, monkeypatch):
    again = tmp_path / 'again'
    write_scenes(again, train=6, test=3)
    assert files(again) == files(root)
    monkeypatch.setattr(scenes, 'compose', None)  # Rendering would fail.
    assert not write_scenes(again, train=6, test=3)


def test_other_arguments_render_anew(tmp_path):
    root = tmp_path / 'scenes'
    write_scenes(root, train=2, test=1)
    before = files(root)
    assert write_scenes(root, train=1, test=1, seed=5)
    after = files(root)
    assert len(after) < len(before)
    image = next(p for p in after if p.match('images/train/000000.png'))
    assert after[image] != before[image]
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize('existing', [False, True])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, existing):
    root = tmp_path / 'scenes'
    if existing:
        write_scenes(root, train=1, test=1)
    before = files(tmp_path)
    calls = []

    def fail_late(*args):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError('disk on fire')
        return compose(*args)

    monkeypatch.setattr(scenes, 'compose', fail_late)
    with pytest.raises(RuntimeError, match='disk on fire'):
        write_scenes(root, train=2, test=2)
    assert files(tmp_path) == before
    assert list(tmp_path.iterdir()) == ([root] if existing else [])


def test_a_damaged_marker_counts_as_none(tmp_path):
    root = tmp_path / 'scenes'
    write_scenes(root, train=1, test=1)
    (root / 'scenes.json').write_text('{"train": 1')
    assert write_scenes(root, train=1, test=1)
    assert json.loads((root / 'scenes.json').read_text())['train'] == 1


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match=r'scenes\.json'):
        write_scenes(tmp_path, train=1, test=1)
    assert (tmp_path / 'thesis.txt').read_text() == 'years of work'


@pytest.mark.parametrize('bad', [
    dict(train=0), dict(test=-1), dict(size=32)])
def test_bad_arguments_are_named(tmp_path, bad):
    (name, value), = bad.items()
    with pytest.raises(ValueError, match=f'{name} must be .* got {value}'):
        write_scenes(tmp_path / 'scenes', **bad)
    assert not any(tmp_path.iterdir())
