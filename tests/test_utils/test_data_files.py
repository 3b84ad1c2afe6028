"""Missing files of data sets are named before anything is built, with their
setting and with what to do; data that cannot be checked pass."""

import copy
import json
import shutil
from functools import cache

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from mmkd_rl.registry import DATASETS
from mmkd_rl.utils.configs import load_config
from mmkd_rl.utils.data_files import check_data
from paper_tables import tiny_data
from tests.commands import in_process

COCO = 'mmkd_rl::downstream/mask-rcnn_r50_fpn_8xb1-2x_coco.py'
CITYSCAPES = 'mmkd_rl::downstream/pspnet_r34-d8_8xb1-80k_cityscapes-' \
    '512x1024.py'
USED = ('train', 'val')


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Run in an empty folder: paths of data are relative to it."""
    monkeypatch.chdir(tmp_path)


@cache
def _read(config):
    return load_config(config)


def read(config):
    """A copy of a config, which is parsed only once."""
    return copy.deepcopy(_read(config))


def message(cfg, names=USED):
    """The message about missing data of a config."""
    with pytest.raises(FileNotFoundError) as caught:
        check_data(cfg, names)
    return str(caught.value)


@pytest.mark.parametrize('config, path, setting, root, guide', [
    (COCO, 'data/coco/annotations/instances_train2017.json', 'ann_file',
     'data_root', 'configs/downstream/README.md'),
    (CITYSCAPES, 'data/cityscapes/leftImg8bit/train', 'data_prefix.img_path',
     'data_root', 'configs/downstream/README.md'),
    ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'data/imagenet/train',
     'data_root', 'data_root', 'configs/imagenet/README.md'),
    # a wrapped data set, whose class asserts that its folders exist
    ('mmseg::unet/unet-s5-d16_deeplabv3_4xb4-40k_drive-64x64.py',
     'data/DRIVE/images/training', 'dataset.data_prefix.img_path',
     'dataset.data_root', ''),
])
def test_nothing_is_there(config, path, setting, root, guide, tmp_path):
    text = message(read(config))
    key = 'train_dataloader.dataset.'
    assert text.startswith(
        f'there is no {path!r} ({key}{setting}, looked for from {tmp_path})')
    assert f'--cfg-options {key}{root}=FOLDER' in text
    assert text.endswith(f'\n{guide} says how to prepare the data') == bool(
        guide)


@pytest.mark.parametrize('config, kind, lost, said', [
    (COCO, 'coco', 'train2017',
     "no 'data/coco/train2017/' (train_dataloader.dataset.data_prefix.img,"),
    (COCO, 'coco', 'annotations/instances_val2017.json',
     '(val_dataloader.dataset.ann_file,'),
    (COCO, 'coco', 'val2017', '(val_dataloader.dataset.data_prefix.img,'),
    (CITYSCAPES, 'cityscapes', 'leftImg8bit/val',
     '(val_dataloader.dataset.data_prefix.img_path,'),
    (CITYSCAPES, 'cityscapes', 'leftImg8bit/train/*/*',
     "'data/cityscapes/leftImg8bit/train' has no image *_leftImg8bit.png "
     '(train_dataloader.dataset.data_prefix.img_path,'),
    (CITYSCAPES, 'cityscapes', 'gtFine/train/city1/*',
     "the label map of 'data/cityscapes/leftImg8bit/train/city1/city1_000000_"
     "000019_leftImg8bit.png' is missing: there is no 'data/cityscapes/gtFine/"
     "train/city1/city1_000000_000019_gtFine_labelTrainIds.png' "
     '(train_dataloader.dataset.data_prefix.seg_map_path,'),
])
def test_a_part_is_not_there(config, kind, lost, said):
    cfg = read(config)
    root = tiny_data.write(kind, cfg.data_root)
    check_data(cfg, ('train', 'val', 'test'))
    found = list(root.glob(lost))
    assert found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = message(cfg)
    assert said in text
    assert text.endswith('configs/downstream/README.md says how to prepare '
                         'the data')
    if 'val' in said.partition('_dataloader')[0]:
        check_data(cfg, ['train'])
    if 'label map' in said:  # nobody reads it
        for key in USED:
            cfg[f'{key}_dataloader'].dataset.pipeline = [
                dict(type='LoadImageFromFile')]
        check_data(cfg, USED)


def test_the_file_of_an_evaluator():
    cfg = read(COCO)
    tiny_data.write('coco', cfg.data_root)
    cfg.val_evaluator.ann_file = 'other.json'
    assert message(cfg).startswith(
        "there is no 'other.json' (val_evaluator.ann_file, looked for")
    cfg.val_dataloader = cfg.val_evaluator = None  # --no-validate
    check_data(cfg, USED)


def test_images_with_absolute_paths():
    """Annotations may have absolute paths, and then no folder is needed."""
    cfg = read(COCO)
    root = tiny_data.write('coco', cfg.data_root)
    path = root / 'annotations' / 'instances_train2017.json'
    moved = (root / 'train2017').rename(root / 'elsewhere').absolute()
    content = json.loads(path.read_text())
    for image in content['images']:
        image['file_name'] = str(moved / image['file_name'])
    path.write_text(json.dumps(content))
    check_data(cfg, USED)


def test_settings_of_wrapped_data_are_named():
    one = dict(type='CocoDataset', ann_file='a.json')
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(
        dataset=dict(type='RepeatDataset', times=2, dataset=dict(
            type='ConcatDataset', datasets=[one])))))
    text = message(cfg)
    key = 'train_dataloader.dataset.dataset.datasets.0.ann_file'
    assert f"no 'a.json' ({key}," in text and f'{key}=PATH' in text


@DATASETS.register_module()
class SlowDataset(BaseDataset):
    """Data set of a user, which reads its files in the constructor."""

    def __init__(self, **kwargs):
        raise AssertionError('it was built by the check')


@pytest.mark.parametrize('dataset', [
    dict(type='mmkd_rl.SlowDataset', ann_file='no.json'),
    dict(type='mmpretrain.CIFAR10', data_prefix='no'),  # is downloaded
    dict(type='CocoDataset', data_root='s3://bucket', ann_file='a.json',
         data_prefix=dict(img='a')),
    dict(type='CocoDataset', ann_file='a.json',
         backend_args=dict(backend='petrel')),
    dict(type='mmpretrain.CustomDataset', data_prefix='no', pipeline=[dict(
        type='LoadImageFromFile', backend_args=dict(backend='lmdb'))]),
    dict(type='NoSuchDataset', ann_file='no.json'),
])
def test_what_cannot_be_checked_passes(dataset):
    cfg = Config(dict(default_scope='mmdet',
                      train_dataloader=dict(dataset=dataset)))
    check_data(cfg, ['train'])


def test_train_and_test_say_it_at_once(monkeypatch, capfd, tmp_path):
    """One message and no traceback, before the model is built."""
    code, text = in_process(monkeypatch, capfd, 'train.py', COCO,
                            '--work-dir', tmp_path / 'run')
    assert code == 2 and text.count('ERROR: there is no') == 1
    assert 'Traceback' not in text and 'Hooks will be executed' not in text
    cfg = read(COCO)
    tiny_data.write('coco', cfg.data_root)
    (tmp_path / 'a.pth').touch()
    code, text = in_process(
        monkeypatch, capfd, 'test.py', COCO, 'a.pth', '--work-dir',
        tmp_path / 'run', options=['test_dataloader.dataset.ann_file=no.json'])
    assert code == 2
    assert "no 'data/coco/no.json' (test_dataloader.dataset.ann_file" in text
    assert not (tmp_path / 'run').exists()
