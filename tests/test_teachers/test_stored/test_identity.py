"""Stored outputs are used for the teacher and the data that they are of."""

import types

import pytest
from mmpretrain.structures import DataSample
from torch import nn

from mmkd_rl.datasets import RepeatableViews
from mmkd_rl.records import ViewKey
from mmkd_rl.teachers import StoredViews
from mmkd_rl.teachers.stored.identity import identity_of
from mmkd_rl.teachers.stored.rows import RowFormat
from mmkd_rl.utils.state_dicts import digest
from tests.test_teachers.test_stored.common import output


def test_the_digest_sees_each_weight():
    net = nn.Sequential(nn.Linear(3, 300), nn.BatchNorm1d(300))
    before = digest(net.state_dict())
    assert before == digest(dict(reversed(net.state_dict().items())))
    for change in (lambda: net[0].weight.data[-1, -1].add_(1e-3),
                   lambda: net[1].running_var[-1].add_(1e-3),
                   lambda: net.half()):
        change()
        assert digest(net.state_dict()) != before
        before = digest(net.state_dict())


def test_where_the_images_are_is_no_part_of_the_identity(tmp_path):
    """Nor the package from which a config was read, but the names are."""
    made = []
    for folder, name, scope in (('a', '1', {}), ('b', '1', {}),
                                ('a', '1', dict(_scope_='mmpretrain')),
                                ('c', '2', {})):
        path = tmp_path / folder / 'cat' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
        data = RepeatableViews(dict(
            type='mmpretrain.CustomDataset',
            data_root=str(tmp_path / folder), pipeline=[], **scope))
        made.append(StoredViews.of(data).identity)
    assert made[0] == made[1] == made[2] != made[3]
    assert made[0]['data'] == made[3]['data']


class Other(nn.Linear):
    """A network with the weights of another one, and other code."""


@pytest.mark.parametrize('change', [
    dict(taps=(types.SimpleNamespace(path='a', source='output', index=0,
                                     call=None), )),
    dict(window='(64, 64)'), dict(precision='bfloat16'),
    dict(network=Other(1, 1))])
def test_other_networks_taps_and_windows_are_other_outputs(change):
    plain = dict(
        network=nn.Linear(1, 1), precision=None, window=None,
        adapter=types.SimpleNamespace(description=''),
        taps=(types.SimpleNamespace(path='a', source='output', index=-1,
                                    call=None), ))
    changed = {**plain, **change}
    changed['network'].load_state_dict(plain['network'].state_dict())

    def identity(settings):
        return identity_of(types.SimpleNamespace(**settings),
                           RowFormat.of(output(), 'pooled'),
                           StoredViews(4, 1, {}), {})

    assert identity(plain) == identity(plain) != identity(changed)


def test_other_labels_are_other_outputs(tmp_path):
    """The score of the label is stored more exactly than others."""
    path = tmp_path / 'a.png'
    path.write_bytes(b'')
    (tmp_path / 'one.txt').write_text('a.png 0')
    (tmp_path / 'other.txt').write_text('a.png 1')
    one, other = (StoredViews.of(RepeatableViews(dict(
        type='mmpretrain.CustomDataset', data_prefix=str(tmp_path),
        ann_file=str(tmp_path / f'{name}.txt'), pipeline=[]))).identity
        for name in ('one', 'other'))
    assert one != other


def test_keys_of_samples():
    named = DataSample(metainfo=dict(view_key=ViewKey(3, 1, 9)))
    assert ViewKey.of([named, named]) == (ViewKey(3, 1, 9), ) * 2
    assert ViewKey.of([named, DataSample()]) is None
    assert ViewKey.of([]) is None
