"""Views of images come again, and an epoch has one of each image."""

import pickle
import random
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmpretrain.structures import DataSample

from mmkd_rl.datasets import RepeatableViews, ViewSampler
from mmkd_rl.options import ConfigError
from mmkd_rl.teachers.pipelines import pipeline_normalization
from tests.toy import WorldDataset

WORLD = dict(type='mmkd_rl.WorldDataset', size=8, jitter=.5)


def views(count=3, **kwargs):
    return RepeatableViews(WORLD, views=count, **kwargs)


def pixels(data, index):
    return data[index]['inputs']


def test_a_view_comes_again():
    """In any order, whatever else draws random numbers."""
    data = views()
    seen = [pixels(data, i) for i in range(24)]
    random.seed(5)
    torch.manual_seed(5)
    for i in (23, 0, 7, 12):
        assert torch.equal(pixels(data, i), seen[i])
        assert torch.equal(pixels(views(), i), seen[i])
    assert len({tuple(p.flatten().tolist()) for p in seen}) == 24
    other = views(seed=1)
    assert not torch.equal(pixels(other, 0), seen[0])


def test_keys():
    data = views()
    for view in range(3):
        key = data[view * 8 + 5]['data_samples'].view_key
        assert (key.image, key.view) == (5, view)
    checksums = {data[i]['data_samples'].view_key.checksum for i in range(24)}
    assert len(checksums) == 24
    with pytest.raises(ConfigError, match='24 is the index of view 3'):
        data[24]
    assert len(data) == 8


def test_the_generators_of_the_training_stay():
    data = views()
    for draw in (random.random, np.random.random,
                 lambda: float(torch.rand(()))):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        alone = [draw(), draw()]
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        first = draw()
        data[3]
        assert [first, draw()] == alone


def test_workers_see_the_same_views():
    data = views()
    alone = [pixels(data, i) for i in range(24)]
    loader = torch.utils.data.DataLoader(
        data, sampler=range(24), num_workers=2, batch_size=4,
        collate_fn=lambda batch: [b['inputs'] for b in batch])
    for seen, known in zip((p for batch in loader for p in batch), alone):
        assert torch.equal(seen, known)


@pytest.mark.parametrize('count', [1, 3])
def test_each_view_before_one_is_repeated(count):
    data = views(count)
    sampler = ViewSampler(data, dict(type='DefaultSampler', shuffle=True),
                          seed=0)
    assert len(sampler) == 8
    seen = Counter()
    for epoch in range(2 * count):
        sampler.set_epoch(epoch)
        images = list(sampler)
        assert sorted(i % 8 for i in images) == list(range(8))
        seen.update(images)
    assert set(seen.values()) == {2} and len(seen) == 8 * count


def test_the_images_are_those_of_the_inner_sampler():
    data = views()
    sampler = ViewSampler(data, dict(type='DefaultSampler', shuffle=True),
                          seed=4)
    plain = DefaultSampler(data, shuffle=True, seed=4)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert [i % 8 for i in sampler] == list(plain)


def test_a_sampler_without_end():
    data = views()
    numbers = iter(ViewSampler(data, dict(type='InfiniteSampler',
                                          shuffle=True), seed=0))
    passes = [[next(numbers) for _ in range(8)] for _ in range(4)]
    for number, seen in enumerate(passes):
        assert {i // 8 for i in seen} == {number % 3}
        assert sorted(i % 8 for i in seen) == list(range(8))


def test_a_run_that_is_resumed_skips():
    whole, skipped = (ViewSampler(views(), dict(
        type='InfiniteSampler', shuffle=True), seed=0) for _ in range(2))
    first = iter(whole)
    numbers = [next(first) for _ in range(40)]
    skipped.skip(20)
    rest = iter(skipped)
    assert [next(rest) for _ in range(20)] == numbers[20:]


class Labelled(WorldDataset):
    def get_gt_labels(self):
        return self.labels


def test_what_others_ask_a_data_set_for():
    data = RepeatableViews(Labelled(8))
    assert torch.equal(data.get_gt_labels(), data.dataset.labels)
    assert not hasattr(data, 'get_subset')
    assert len(pickle.loads(pickle.dumps(data))) == 8  # noqa: S301


def test_several_views_in_a_row():
    data = views(4)
    sampler = ViewSampler(data, dict(type='DefaultSampler', shuffle=True),
                          seed=0, repeats=2)
    all_views = Counter()
    for epoch in range(2):
        sampler.set_epoch(epoch)
        seen = list(sampler)
        assert len(seen) == len(sampler) == 8
        pairs = list(zip(seen[::2], seen[1::2]))
        for a, b in pairs:
            assert a % 8 == b % 8
            assert (a // 8, b // 8) == (2 * epoch, 2 * epoch + 1)
        assert len({a % 8 for a, _ in pairs}) == 4
        all_views.update(seen)
    assert max(all_views.values()) == 1
    with pytest.raises(ConfigError, match='at most the number of views, 4'):
        ViewSampler(data, repeats=5)


def test_one_decoding_for_several_views(tmp_path, monkeypatch):
    """Of views in a row; each has its own copy of the image."""
    for i in range(2):
        (tmp_path / 'a').mkdir(exist_ok=True)
        image = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'a/{i}.png'), image)
    config = dict(
        type='mmpretrain.CustomDataset', data_prefix=str(tmp_path), pipeline=[
            dict(type='mmpretrain.LoadImageFromFile'),
            dict(type='mmpretrain.RandomCrop', crop_size=8, padding=2),
            dict(type='mmpretrain.ColorJitter', brightness=.5),
            dict(type='mmpretrain.PackInputs')])
    data = RepeatableViews(config, views=4)
    read = []
    from mmcv.transforms import LoadImageFromFile
    plain = LoadImageFromFile.transform
    monkeypatch.setattr(LoadImageFromFile, 'transform', lambda self, r: (
        read.append(r['img_path']), plain(self, r))[1])
    in_a_row = [pixels(data, i) for i in (0, 2, 4, 6, 1, 3)]
    assert len(read) == 2
    turned = [pixels(data, i) for i in (3, 6, 1, 4, 2, 0)]
    for a, b in zip(in_a_row, (turned[5], turned[4], turned[3], turned[1],
                               turned[2], turned[0])):
        assert torch.equal(a, b)
    assert data[0]['data_samples'].ori_shape == (8, 8)


def test_the_normalisation_in_the_pipeline_counts_once(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    config = dict(
        type='mmpretrain.CustomDataset', data_prefix=str(tmp_path),
        with_label=False, pipeline=[
            dict(type='mmpretrain.LoadImageFromFile'),
            dict(type='mmcv.Normalize', mean=[100.] * 3, std=[50.] * 3),
            dict(type='mmpretrain.PackInputs')])
    data = RepeatableViews(config)
    found = pipeline_normalization(data)
    assert found == pipeline_normalization(data.dataset)
    assert found.mean == (100.,) * 3


def test_what_cannot_be_repeated():
    with pytest.raises(ConfigError, match='must be a data set'):
        RepeatableViews(3)
    with pytest.raises(ConfigError, match=r'views must be >= 1, got 0'):
        views(0)
    with pytest.raises(ConfigError, match='PipelineSwitchHook'):
        views().pipeline = []
    with pytest.raises(ConfigError, match='ViewSampler needs dataset'):
        ViewSampler(WorldDataset())

    class Bare(WorldDataset):
        def __getitem__(self, index):
            return dict(inputs=[1, 2], data_samples=DataSample())

    with pytest.raises(ConfigError, match='must end with PackInputs'):
        RepeatableViews(Bare())[0]
