"""Configs of Tables 4 and 5: they are the toolboxes' configs with the paper's
settings, start from a trained backbone, train for two steps and are evaluated
on tiny data sets, whose formats are those of the real ones."""

import copy
import json
import math
import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmkd_rl import with_backbone
from mmkd_rl.registry import DATASETS, METRICS
from mmkd_rl.utils.configs import load_config
from paper_tables import tiny_data
from tests.test_backbone_from import assert_arrived, student

ROOT = Path(__file__).parents[1]
#: Config by detector, its base in MMDetection, base learning rate, depths of
#: the paper's backbones.
DETECTORS = {
    'mask-rcnn': ('mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py', .02, (18, 50)),
    'cascade-rcnn': (
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', .02, (18, 50)),
    'retinanet': ('retinanet/retinanet_r50_fpn_2x_coco.py', .01, (34, 50)),
    'faster-rcnn': ('faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py', .02,
                    (34, 50))}
#: Crop, classes and images per GPU of MMSegmentation's config by data set.
DATA = {'cityscapes-512x1024': ((512, 1024), 19, 2),
        'ade20k-512x512': ((512, 512), 150, 4),
        'coco-stuff164k-512x512': ((512, 512), 171, 4)}
SEGMENTORS = ('deeplabv3', 'pspnet')
CASES = [
    *((f'{name}_r50_fpn_8xb1-2x_coco', depth)
      for name, (_, _, depths) in DETECTORS.items() for depth in depths),
    *((f'{name}_r34-d8_8xb1-80k_{data}', 34)
      for name in SEGMENTORS for data in DATA)]
NAMES = list(dict.fromkeys(name for name, _ in CASES))


@cache
def of_file(name):
    return load_config(name)


def read(name, depth=None):
    """A config by its package name, with the options of its docstring for a
    smaller backbone."""
    cfg = copy.deepcopy(of_file(f'mmkd_rl::downstream/{name}.py'))
    if depth is not None and depth != cfg.model.backbone.depth:
        note = Path(f'{ROOT}/configs/downstream/{name}.py').read_text()
        found = re.search(r'--cfg-options (model.*) \\\n\s*(model.*)\n', note)
        options = dict(option.replace('"', '').split('=', 1)
                       for option in found.groups())
        assert options['model.backbone.depth'] == str(depth)
        cfg.merge_from_dict({key: DictAction._parse_iterable(value)
                             for key, value in options.items()})
    return cfg


def values(value, path=''):
    """All settings in a config by their dotted names, without the scopes that
    MMEngine writes."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {path: value}
    found = {}
    for key, item in items:
        if key != '_scope_':
            found.update(values(item, f'{path}.{key}' if path else str(key)))
    return found


def changes(cfg, base):
    """Settings of ``cfg`` that ``base`` does not have; ``None``: only
    ``base`` has it."""
    ours, theirs = values(cfg.to_dict()), values(base.to_dict())
    return {key: ours.get(key) for key in {*ours, *theirs}
            if key not in ours or key not in theirs
            or ours[key] != theirs[key]}


# ---- the configs ---------------------------------------------------------


def test_all_configs_are_tested():
    files = (ROOT / 'configs' / 'downstream').glob('*.py')
    # The small transfers are run whole, see docs/results/downstream.md.
    assert sorted(path.stem for path in files
                  if 'cifar-' not in path.stem) == sorted(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_it_is_a_lab_note(name):
    note = (ROOT / 'configs' / 'downstream' / f'{name}.py').read_text().split(
        '"""')[1]
    assert f'    mmkd_rl::downstream/{name}.py' in note
    assert '--backbone-from work_dirs/RUN' in note
    assert re.search(r'^Paper: MTKD-RL \(AAAI 2025\), Table [45], m', note,
                     re.M)
    assert '\nNot yet reproduced.\n' in note
    assert 'Differences: none known. Assumptions:' in note
    assert read(name).data_root.rstrip('/') in re.findall(r'`(.*?)`', note)
    for student_config in re.findall(r'mmkd_rl::(imagenet/\S+?\.py)', note):
        assert (ROOT / 'configs' / student_config).is_file()


@pytest.mark.parametrize('detector', DETECTORS)
def test_a_detector_differs_from_mmdetections(detector):
    base, lr, _ = DETECTORS[detector]
    cfg = read(f'{detector}_r50_fpn_8xb1-2x_coco')
    theirs = of_file(f'mmdet::{base}')
    expected = {
        'model.backbone.init_cfg': None,
        'model.backbone.init_cfg.type': None,
        'model.backbone.init_cfg.checkpoint': None,
        'train_dataloader.batch_size': 1, 'auto_scale_lr.enable': True}
    if '_1x_' in base:
        expected.update({
            'train_cfg.max_epochs': 24, 'param_scheduler.1.end': 24,
            'param_scheduler.1.milestones.0': 16,
            'param_scheduler.1.milestones.1': 22})
    assert changes(cfg, theirs) == expected
    assert cfg.default_scope == 'mmdet'
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_epochs == 24
    assert cfg.optim_wrapper.optimizer.lr == lr
    scales = {tuple(step.scale) for key in ('train', 'val', 'test')
              for step in cfg[f'{key}_dataloader'].dataset.pipeline
              if 'scale' in step}
    assert scales == {(1333, 800)}


@pytest.mark.parametrize('segmentor', SEGMENTORS)
@pytest.mark.parametrize('data', DATA)
def test_a_segmentor_differs_from_mmsegmentations(segmentor, data):
    crop, classes, images = DATA[data]
    cfg = read(f'{segmentor}_r34-d8_8xb1-80k_{data}')
    theirs = of_file(f'mmseg::{segmentor}/{segmentor}_r50-d8_4xb{images}-80k_'
                     f'{data}.py')
    assert changes(cfg, theirs) == {
        'model.pretrained': None,
        'model.backbone.type': 'ResNet', 'model.backbone.depth': 34,
        'model.decode_head.in_channels': 512,
        'model.decode_head.channels': 128,
        'model.auxiliary_head.in_channels': 256,
        'model.auxiliary_head.channels': 64,
        'optimizer.lr': .1, 'optim_wrapper.optimizer.lr': .1,
        'param_scheduler.0.eta_min': 0.,
        'train_dataloader.batch_size': 1}
    assert cfg.default_scope == 'mmseg'
    assert tuple(cfg.model.data_preprocessor.size) == crop
    assert {cfg.model[key].num_classes
            for key in ('decode_head', 'auxiliary_head')} == {classes}
    assert cfg.train_cfg.max_iters == 80000 and \
        cfg.optim_wrapper.optimizer.momentum == .9


# ---- two steps -----------------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Function that writes a kind of data once and returns its folder."""
    @cache
    def folder(kind):
        return tiny_data.write(kind, tmp_path_factory.mktemp(kind))
    return folder


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Function of a depth: checkpoints of a ResNet that was trained alone and
    of one that was distilled, and the backbone in both."""
    @cache
    def of_depth(depth):
        folder = tmp_path_factory.mktemp(f'resnet{depth}')
        alone, backbone = student(
            dict(type='ResNet', depth=depth), folder, 'alone.pth')
        content = torch.load(alone)
        content['state_dict']['distillation.projector'] = torch.zeros(1)
        cfg = Config.fromstring(content['meta']['cfg'], '.py')
        cfg.model = dict(type='mmkd_rl.MultiTeacherDistiller',
                         student=cfg.model)
        content['meta']['cfg'] = cfg.pretty_text
        torch.save(content, folder / 'distilled.pth')
        return alone, folder / 'distilled.pth', backbone
    return of_depth


class _Record(Hook):
    """Keeps the weights before the first step, and what each step and the
    evaluation give."""

    def __init__(self, backbone):
        self.backbone, self.losses, self.metrics = backbone, [], None

    def before_train(self, runner):
        self.left = assert_arrived(runner.model, self.backbone)
        self.before = {n: p.detach().clone()
                       for n, p in runner.model.named_parameters()
                       if p.requires_grad}

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.losses.append({
            n: float(v.detach()) for n, v in outputs.items()})

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


@pytest.mark.downstream
@pytest.mark.parametrize('name, depth', CASES)
def test_two_steps_from_a_trained_backbone(name, depth, data, trained,
                                           tmp_path):
    alone, distilled, backbone = trained(depth)
    cfg = read(name, depth)
    base, cfg = with_backbone(cfg, alone), with_backbone(cfg, distilled)
    assert changes(cfg, base) == {
        'model.backbone.init_cfg.checkpoint': str(distilled)}

    tiny_data.fit(cfg, data(tiny_data.kind_of(cfg)))
    cfg.work_dir, cfg.experiment_name = str(tmp_path), f'{name}-{depth}'
    cfg.default_hooks.checkpoint = None
    runner = Runner.from_cfg(cfg)
    record = _Record(backbone)
    runner.register_hook(record)
    runner.train()

    assert not record.left
    assert runner.iter == len(record.losses) == 2
    assert all(math.isfinite(v) for one in record.losses
               for v in one.values())
    detector = name.split('_')[0]
    assert len(record.losses[0]) > (1 if detector == 'retinanet' else 3)
    # Of each part, trainable weights have moved.
    after = dict(runner.model.named_parameters())
    moved = {n.split('.')[0] for n, p in record.before.items()
             if not torch.equal(p, after[n])}
    assert moved == {n.split('.')[0] for n in record.before}
    expected = ['mIoU']
    if detector in DETECTORS:
        expected = ['coco/bbox_mAP'] + (
            ['coco/segm_mAP'] if detector == 'mask-rcnn' else [])
        # Scaled to the one image of this process, from 16.
        rate = runner.optim_wrapper.param_groups[0]['initial_lr']
        assert rate == pytest.approx(DETECTORS[detector][1] / 16)
    for key in expected:
        assert 0 <= record.metrics[key] <= 100, key


@pytest.mark.parametrize('name', [NAMES[0], NAMES[-1]])
def test_fitting_keeps_the_network(name, tmp_path):
    """Boxes of training and test, and the kind of norm, are all that changes
    in the model."""
    cfg = read(name)
    tiny_data.fit(cfg, tmp_path)
    assert 'SyncBN' not in values(cfg.model.to_dict()).values()
    found = {key for key in changes(cfg, read(name))
             if key.startswith('model.')}
    assert found and not [
        key for key in found if not re.fullmatch(
            r'model\.((train|test)_cfg\..*\.?(nms_pre|max_per_img|num|'
            r'score_thr)|.*norm_cfg\.type|data_preprocessor\.size\.\d)', key)]


def test_fitting_refuses_other_data(tmp_path):
    cfg = load_config('mmdet::pascal_voc/ssd300_voc0712.py')
    with pytest.raises(ValueError, match="CocoDataset.*got 'VOCDataset'"):
        tiny_data.fit(cfg, tmp_path)


# ---- the tiny data -------------------------------------------------------


def evaluated(cfg, root, key='val_dataloader'):
    """Data set and metric of a config's evaluation on tiny data."""
    tiny_data.fit(cfg, root)
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[key].dataset)
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    return dataset, metric


def tree(root):
    return {str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob('*')) if path.is_file()}


@pytest.mark.parametrize('kind', ['coco', *tiny_data.LAYOUTS])
def test_data_follow_the_seed(kind, tmp_path):
    first, again, other = (
        tree(tiny_data.write(kind, tmp_path / name, seed))
        for name, seed in (('a', 0), ('b', 0), ('c', 1)))
    assert first == again and first.keys() == other.keys()
    assert not [name for name in first if first[name] == other[name]]
    assert sum(map(len, first.values())) < 500_000
    with pytest.raises(ValueError, match="kind: tiny_data has no 'voc'"):
        tiny_data.write('voc', tmp_path)


def test_coco_has_what_coco_has(data):
    """80 categories with ids up to 90, polygons, a crowd as runs, an image
    without annotations; training leaves out the latter and ignores crowds."""
    root = data('coco')
    content = json.loads(
        (root / 'annotations' / 'instances_train2017.json').read_text())
    ids = [c['id'] for c in content['categories']]
    assert len(ids) == 80 and ids[0] == 1 and ids[-1] == 90
    names = {c['id']: c['name'] for c in content['categories']}
    assert (names[13], names[90]) == ('stop sign', 'toothbrush')
    crowds = [a for a in content['annotations'] if a['iscrowd']]
    assert len(crowds) == 1
    runs = crowds[0]['segmentation']
    assert sum(runs['counts']) == math.prod(runs['size'])
    assert sum(runs['counts'][1::2]) == crowds[0]['area'] == 16 * 32 + 8 * 24
    assert crowds[0]['bbox'] == [8, 80, 64, 16]
    used = {a['image_id'] for a in content['annotations']}
    assert len(used) == len(content['images']) - 1
    for image in content['images']:
        shape = cv2.imread(
            str(root / 'train2017' / image['file_name'])).shape
        assert shape == (image['height'], image['width'], 3)

    cfg = read('mask-rcnn_r50_fpn_8xb1-2x_coco')
    cfg.train_dataloader.dataset.pipeline[-2].prob = 0.  # no flip
    dataset, _ = evaluated(cfg, root, 'train_dataloader')
    assert len(dataset) == len(used)
    instances = dataset[0]['data_samples']
    assert len(instances.gt_instances) == 3
    assert len(instances.ignored_instances) == 1
    pixels = dataset[0]['inputs'].permute(1, 2, 0).numpy()
    for mask, label in zip(instances.gt_instances.masks.masks,
                           instances.gt_instances.labels.tolist()):
        assert_coloured(pixels, mask, label)


def assert_coloured(pixels, mask, label):
    """Check that the pixels in a mask have the colour of a class."""
    inside = cv2.erode(mask, np.ones((5, 5), np.uint8)).astype(bool)
    assert inside.any()
    assert pixels[inside].mean(0) == pytest.approx(
        tiny_data.colour(label), abs=12)


def detections(dataset, coco, more=None):
    """Detections that are the annotations, and ``more`` (box and class) in the
    first image with a higher score."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        found = [(a['bbox'], dataset.cat2label[a['category_id']],
                  coco.annToRLE(a), .9)
                 for a in coco.loadAnns(coco.getAnnIds(info['img_id']))
                 if not a['iscrowd']]
        if more and index == 0:
            box, label = more
            mask = np.zeros((info['height'], info['width']), np.uint8)
            x, y, w, h = box
            mask[y:y + h, x:x + w] = 1
            found.append((box, label, coco_mask.encode(
                np.asfortranarray(mask)), 1.))
        boxes = torch.tensor([f[0] for f in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        yield dict(
            img_id=info['img_id'],
            ori_shape=(info['height'], info['width']),
            pred_instances=dict(
                bboxes=boxes, labels=torch.tensor([f[1] for f in found]),
                scores=torch.tensor([f[3] for f in found]),
                masks=[f[2] for f in found]))


@pytest.mark.parametrize('more, perfect', [
    (None, True),
    ([12, 82, 20, 10], True),  # in the crowd: neither right nor wrong
    ([100, 2, 20, 10], False)])
def test_perfect_detections_have_an_ap_of_one(data, more, perfect):
    dataset, metric = evaluated(
        read('mask-rcnn_r50_fpn_8xb1-2x_coco'), data('coco'))
    coco = COCO(data('coco') / 'annotations' / 'instances_val2017.json')
    crowd, = (a for a in coco.dataset['annotations'] if a['iscrowd'])
    label = dataset.cat2label[crowd['category_id']]
    metric.process({}, [
        *detections(dataset, coco, more and (more, label))])
    scores = metric.evaluate(len(dataset))
    for key in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert (scores[key] == 1.) == perfect, key


@pytest.mark.parametrize('kind, name', [
    (kind, f'pspnet_r34-d8_8xb1-80k_{data}')
    for kind, data in zip(tiny_data.LAYOUTS, DATA)])
def test_perfect_maps_have_an_iou_of_100(kind, name, data):
    """Unlabelled pixels do not count, and one wrong pixel does."""
    dataset, metric = evaluated(read(name), data(kind))
    classes = len(dataset.metainfo['classes'])
    raw = {int(v) for path in data(kind).rglob('*.png')
           if 'leftImg8bit' not in path.name
           for v in np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))}
    layout = tiny_data.LAYOUTS[kind]
    assert layout.unlabelled in raw and len(raw) > 4
    assert all(layout.first <= v < layout.first + classes
               for v in raw - {layout.unlabelled})
    results = []
    for wrong in (False, True):
        for sample in (dataset[i]['data_samples'] for i in range(
                len(dataset))):
            truth = sample.gt_sem_seg.data
            assert truth.shape == (1, *tiny_data.SHAPE)
            assert set(truth.unique().tolist()) <= {*range(classes), 255}
            assert (truth == 255).sum() == 8 * 128
            pixels = cv2.imread(sample.img_path)
            behind, polygons = int(truth.flatten().mode().values), 0
            for label in truth.unique().tolist():
                if label not in (behind, 255):
                    polygons += 1
                    assert_coloured(pixels, np.uint8(truth[0] == label), label)
            assert polygons
            labels = truth.clone()
            labels[truth == 255] = 3
            if wrong:
                labels[0, 0, 0] = (labels[0, 0, 0] + 1) % classes
            metric.process({}, [dict(
                gt_sem_seg=dict(data=truth), pred_sem_seg=dict(data=labels),
                img_path=sample.img_path)])
        results.append(metric.evaluate(len(dataset))['mIoU'])
    assert results[0] == 100. and results[1] < 100.
