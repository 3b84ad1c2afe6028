"""Classes of a config and categories of the file."""

import json

import pytest
from mmengine.config import Config

from mmkd_rl.utils import categories
from mmkd_rl.utils.data_files import check_data

pytest.importorskip('mmdet')
CELLS = ['RBC', 'WBC', 'Platelets']


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Warnings for a config's classes, and a file with :data:`CELLS`."""
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='a.jpg', width=9, height=9)],
        info='not the "categories": ["here"], as said',
        annotations=[], categories=[
            # Ids with gaps, and more than names.
            dict(id=10 * i + 7, name=name, supercategory='cell')
            for i, name in enumerate(CELLS)])))
    warnings = []
    monkeypatch.setattr(categories, 'print_log', warnings.append)

    def check(classes, **kwargs):
        given = {} if classes is None else dict(
            metainfo=dict(classes=classes))
        check_data(Config(dict(
            default_scope='mmdet', train_dataloader=dict(dataset=dict(
                type='CocoDataset', data_root=str(tmp_path), **given,
                **{**dict(ann_file='train.json', pipeline=[],
                          data_prefix=dict(img='train/')), **kwargs})))),
            ['train'])
        return warnings

    return check


def test_the_same_names(said):
    assert not said(tuple(CELLS))
    # A part of the categories is often wanted.
    assert not said(('RBC', 'Platelets'))


@pytest.mark.parametrize('classes, named', [
    (None, "'person', 'bicycle'"), (('rbc', 'wbc'), "'rbc', 'wbc'")])
def test_no_class_is_in_the_file(said, classes, named):
    with pytest.raises(ValueError, match=r"categories 'RBC', 'WBC', "
                       rf"'Platelets', and none of.*{named}.*no object.*"
                       r'train_dataloader.dataset.metainfo='):
        said(classes)


def test_a_class_is_not_in_the_file(said):
    text, = said(('RBC', 'WBC', 'Platlets'))
    assert "has no category 'Platlets'" in text and "'Platelets'" in text


def test_classes_in_another_order(said):
    text, = said(('WBC', 'RBC', 'Platelets'))
    assert "order 'RBC', 'WBC'" in text and "order 'WBC', 'RBC'" in text


def test_a_text_in_place_of_names(said):
    with pytest.raises(ValueError, match=r"classes=\('RBC', \)"):
        said('RBC')


def test_files_that_are_not_understood(said, tmp_path):
    """MMDetection says what is wrong with them."""
    for content in ('', '{}', '{"categories": [1]}', '{"categories": [{"id":'):
        (tmp_path / 'other.json').write_text(content)
        assert not said(('x', ), ann_file='other.json')
