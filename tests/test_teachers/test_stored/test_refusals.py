"""What would mix up outputs and images is refused."""

import json

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmpretrain.structures import DataSample
from torch import nn

from mmkd_rl.datasets import RepeatableViews
from mmkd_rl.options import ConfigError
from mmkd_rl.records import Batch, Output, ViewKey
from mmkd_rl.registry import HOOKS
from mmkd_rl.teachers import InputAdapter, StoredExecutor, StoredViews
from mmkd_rl.teachers.tapped import TappedNetwork
from tests.test_teachers.test_stored.common import REFUSAL, run, stored
from tests.toy import distiller, toy_runner, toy_teachers


def executor_of(tmp_path):
    """A stored executor of four images, and a teacher whose outputs are the
    means of its images; -1 gives NaN."""
    def read(images):
        mean = images.mean((1, 2, 3))[:, None]
        mean = torch.where(mean < 0, torch.nan, mean)
        return Output((mean.expand(-1, 3), ), (mean.expand(-1, 5), )), ()

    torch.manual_seed(0)  # one store for all weights that are the same
    network = TappedNetwork(nn.Linear(1, 1), print, InputAdapter(None, None))
    executor = StoredExecutor('a', network, read, folder=str(tmp_path))
    executor.run = lambda batch: read(batch.images)
    executor.begin(StoredViews(4, 1, {}), maps=False)
    return executor


def batch_of(*values):
    images = torch.tensor(values)[:, None, None, None].expand(-1, 3, 2, 2)
    return Batch(images, [DataSample()] * len(values), [
        ViewKey(i, 0, i + 1) for i in range(len(values))])


def test_nan_in_a_part_of_a_batch_is_not_read_as_zero(tmp_path):
    executor = executor_of(tmp_path)
    output, _ = executor(batch_of(1., 2.))
    assert output.features[0][:, 0].tolist() == [1., 2.]
    with pytest.raises(FloatingPointError, match="'a' gave NaN"):
        executor(batch_of(1., 2., -1.))
    assert executor.absent() == [2, 3]
    output, _ = executor(batch_of(1., 2., 3.))
    assert output.features[0][:, 0].tolist() == [1., 2., 3.]


def test_rows_that_are_there_are_not_written_again(tmp_path):
    first = executor_of(tmp_path)
    first(batch_of(1., 2.))
    first.flush()
    again = executor_of(tmp_path)
    output, _ = again(batch_of(9., 9., 3.))  # as if computed otherwise
    assert output.features[0][:, 0].tolist() == [1., 2., 3.]
    assert (again.read_count, again.run_count) == (2, 1)


def test_keys_without_the_hook(tmp_path):
    executor = executor_of(tmp_path)
    executor._views = None
    with pytest.raises(ConfigError, match='no StoredOutputsHook'):
        executor(batch_of(1.))


class MixLater(Hook):
    """Switches mixup on in the second epoch, as SwitchRecipeHook does."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.model.data_preprocessor.batch_augments = lambda *a: a


def test_mixing_that_a_hook_switches_on(tmp_path):
    HOOKS.register_module(name='MixLater', module=MixLater, force=True)
    with pytest.raises(REFUSAL, match='batch_augments.*mixup'):
        run(tmp_path, 'a', stored(tmp_path), hooks=[dict(type='MixLater')])
    with pytest.raises(REFUSAL, match='PipelineSwitchHook switches'):
        run(tmp_path, 'b', stored(tmp_path), hooks=[dict(
            type='mmdet.PipelineSwitchHook', switch_epoch=3,
            switch_pipeline=[])])


def test_data_without_views(tmp_path):
    teachers = [dict(t, executor=stored(tmp_path))
                for t in toy_teachers(tmp_path)]
    runner = toy_runner(tmp_path / 'r', distiller(teachers),
                        hooks=[dict(type='StoredOutputsHook')])
    with pytest.raises(REFUSAL, match='RepeatableViews.*--stored'):
        runner.train()


def test_a_sampler_of_the_first_view(tmp_path):
    with pytest.raises(REFUSAL, match='takes the first of 2 views'):
        run(tmp_path, 'a', stored(tmp_path),
            sampler=dict(type='DefaultSampler', shuffle=True))


def test_images_that_are_mixed(tmp_path):
    teachers = [dict(t, executor=stored(tmp_path))
                for t in toy_teachers(tmp_path)]
    runner = toy_runner(
        tmp_path / 'r', distiller(teachers),
        hooks=[dict(type='StoredOutputsHook')],
        data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor', num_classes=5,
            batch_augments=dict(augments=dict(type='Mixup', alpha=.2))),
        train_dataloader=dict(
            batch_size=8, num_workers=0,
            sampler=dict(type='mmkd_rl.ViewSampler'),
            dataset=dict(type='mmkd_rl.RepeatableViews',
                         dataset=dict(type='mmkd_rl.WorldDataset'))))
    with pytest.raises(REFUSAL, match='batch_augments.*mixup'):
        runner.train()


def test_other_images_are_noticed(tmp_path):
    """The same names and pipeline, other pixels."""
    run(tmp_path, 'a', stored(tmp_path), epochs=1)
    meta = tmp_path / 'store/t0/meta.json'
    before = meta.read_text()
    with pytest.raises(ConfigError, match='store.*is of something else: data'):
        run(tmp_path, 'b', stored(tmp_path), jitter=.4, epochs=1)
    # As if files had been changed in place: the identity is that of before.
    other = json.loads(before)
    teachers = tmp_path / 'other'
    run(tmp_path, 'c', dict(type='stored', folder=str(teachers)), jitter=.4,
        epochs=1)
    new = json.loads((teachers / 't0/meta.json').read_text())
    for name in ('t0', 't1'):
        own = json.loads((tmp_path / f'store/{name}/meta.json').read_text())
        own['data'] = new['data']
        (tmp_path / f'store/{name}/meta.json').write_text(json.dumps(own))
    assert other['data'] != new['data']
    with pytest.raises(ConfigError, match='is not the one whose output'):
        run(tmp_path, 'd', stored(tmp_path), jitter=.4, epochs=1)


class OwnGenerator:
    """Images with noise from a generator of the data set's own."""

    metainfo: dict = {}

    def __init__(self):
        self.generator = np.random.default_rng()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.from_numpy(self.generator.random((3, 4, 4))),
                    data_samples=DataSample())


def test_views_that_do_not_come_again():
    data = RepeatableViews(OwnGenerator())
    with pytest.raises(ConfigError, match='not the same when it is read'):
        StoredViews.of(data).check(data)
