"""A config with small images, and random batches in its format.

Depths, widths, heads, losses, preprocessors and batch augmentations stay as
they are. What changes are the size of images, the number of a detector's
proposals, weights that would be downloaded, and mixed precision, which needs a
GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, TRANSFORMS, Registry
from mmpretrain.datasets import MultiLabelDataset, MultiTaskDataset

from coverage_parts import objects
from coverage_parts.teachers import student_preprocessor
from mmkd_rl.recipes.making import image_size
from mmkd_rl.registry import DATASETS
from mmkd_rl.teachers.loading import offline
from mmkd_rl.utils.configs import class_name, complete_loaders

Size = tuple[int, int]

#: Sides that are tried first, since they are fast; the config's own is last.
_SIDES = dict(mmseg=(64, 128), mmpretrain=(64, ), mmdet=(128, 256))
_UNKNOWN = dict(mmseg=512, mmpretrain=224, mmdet=512)
#: Detectors take any size; their own images take minutes.
_LARGEST = 512
#: Pipeline steps that set the size of images, and their option.
_SIZED = dict(RandomCrop='crop_size', CenterCrop='crop_size', Resize='scale',
              RandomResizedCrop='scale', EfficientNetRandomCrop='scale')
#: Those of MMCV, whose sizes are (width, height).
_WIDTH_FIRST = ('CenterCrop', 'Resize')
#: Pipeline steps that make a part of the data, beside the one that packs it.
_MAKERS = ('GenerateEdge', 'SegRescale')
_IGNORED = 255
#: MMCV's, which needs a process group; PyTorch's does not.
_SYNC_BN = 'MMSyncBN'


def sizes(cfg: Config) -> list[Size]:
    """Sizes of images to try, (H, W), from small to the config's own."""
    own = student_preprocessor(cfg).get('size') or image_size(cfg) or \
        _UNKNOWN[cfg.default_scope]
    height, width = (own, own) if isinstance(own, int) else own
    if cfg.default_scope == 'mmdet':
        height, width = (min(side, _LARGEST) for side in (height, width))
    sides = _SIDES[cfg.default_scope]
    if _sets_size(cfg):
        # Not 64, with which a distiller probes where it knows no better.
        sides = sides[-1:]
    return [*((side, side) for side in sides
              if side * side < height * width), (height, width)]


def _sets_size(cfg: Config) -> bool:
    """Whether a segmentor's backbone is told the size of images. It is told
    the small one: attention on large images fills the memory."""
    return cfg.default_scope == 'mmseg' and \
        'img_size' in (cfg.model.get('backbone') or {})


def with_size(cfg: Config, size: Size, lean: bool = False) -> Config:
    """A copy of a config for images of a size, which loads no weights.

    Args:
        cfg: A plain training config.
        size: (H, W).
        lean: Replace the optimiser by plain SGD, which needs no memory.
    """
    cfg = copy.deepcopy(cfg)
    complete_loaders(cfg)
    for step in _steps(cfg):
        kind = class_name(step.get('type'))
        if (key := _SIZED.get(kind)) in step:
            step[key] = size[::-1] if kind in _WIDTH_FIRST else size
    for preprocessor in (cfg.get('data_preprocessor'),
                         cfg.model.get('data_preprocessor')):
        if preprocessor and preprocessor.get('size'):
            preprocessor['size'] = size
        for augment in (preprocessor or {}).get('batch_augments') or ():
            if 'size' in augment:
                augment['size'] = size
    if _sets_size(cfg):
        cfg.model.backbone.img_size = size
    test = cfg.model.get('test_cfg') or {}
    if 'slide' in str(test.get('mode')):
        test['crop_size'] = size
        test['stride'] = tuple(max(1, 2 * side // 3) for side in size)
    if cfg.default_scope == 'mmdet':
        for key in ('train_cfg', 'test_cfg'):
            cfg.model[key] = objects.with_few_proposals(cfg.model.get(key))
    cfg.model = _without_weights(offline(cfg.model))
    wrapper = cfg.optim_wrapper
    if class_name(wrapper.get('type')) == 'AmpOptimWrapper':
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fp16'):
            wrapper.pop(key, None)
    if lean:
        # Rules for single parameters need a weight decay.
        wrapper.optimizer = dict(type='SGD', lr=wrapper.optimizer.lr,
                                 weight_decay=0., foreach=False)
    return cfg


def _without_weights(value: Any) -> Any:
    """Remove all ``init_cfg`` that read a file or URL, at any depth, and
    ``pretrained``; MMSyncBN becomes BN, since there is one process."""
    if isinstance(value, dict):
        return type(value)({
            k: 'BN' if k == 'type' and v == _SYNC_BN else _without_weights(v)
            for k, v in value.items()
            if not (k == 'init_cfg' and _reads_file(v)
                    or k == 'pretrained' and isinstance(v, str))})
    if isinstance(value, (list, tuple)):
        return type(value)(_without_weights(v) for v in value)
    return value


def _reads_file(init: Any) -> bool:
    return any(isinstance(c, dict) and 'checkpoint' in c
               for c in (init if isinstance(init, list) else [init]))


def _steps(cfg: Config) -> list[dict]:
    """Steps of the training pipeline; of several data sets, of the first."""
    return next((d['pipeline'] for d in
                 _datasets(cfg.train_dataloader.dataset)
                 if d.get('pipeline')), [])


def _format_steps(cfg: Config) -> list[dict]:
    """Steps of the training pipeline that give an item its format."""
    return [step for step in _steps(cfg)
            if class_name(step.get('type')).startswith('Pack')
            or class_name(step.get('type')) in _MAKERS]


def data_format(cfg: Config) -> tuple:
    """All of a config's data on which :func:`random_batch` depends."""
    return (_format_steps(cfg), cfg.train_dataloader.get('collate_fn'),
            [class_name(d.get('type'))
             for d in _datasets(cfg.train_dataloader.dataset)])


def _datasets(value: Any) -> Iterator[dict]:
    """Configs of a data set and of all data sets that it wraps."""
    if isinstance(value, dict):
        yield value
        for name in ('dataset', 'datasets'):
            yield from _datasets(value.get(name))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _datasets(part)


def num_classes(cfg: Config) -> int:
    """Number of classes of a detector, segmentor or classifier."""
    if cfg.default_scope == 'mmdet':
        return objects.num_classes(cfg)
    head = cfg.model.get('decode_head') or cfg.model.get('head')
    # The last head of a cascade gives the result.
    last = head[-1] if isinstance(head, (list, tuple)) else head
    return int(_first(last, 'num_classes')
               or student_preprocessor(cfg).get('num_classes') or 1000)


def _first(value: Any, key: str) -> Any:
    """The first value of a key in a config; K-Net's head, which has none, has
    heads inside that have it."""
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_first(v, key) for v in value)), None)
    if not isinstance(value, dict):
        return None
    return value.get(key) or _first(list(value.values()), key)


def num_channels(cfg: Config) -> int:
    """Number of channels of an image."""
    mean = student_preprocessor(cfg).get('mean')
    backbone = cfg.model.get('backbone') or {}
    return len(mean) if mean else backbone.get('in_channels', 3)


def has_several_labels(cfg: Config) -> bool:
    """Whether an image of a classifier has several labels. Not the head says
    so: MMPretrain's for mixup are those for several labels."""
    kinds = [registered(DATASETS, d.get('type'), cfg.default_scope)
             for d in _datasets(cfg.train_dataloader.dataset)]
    return any(isinstance(kind, type) and issubclass(
        kind, (MultiLabelDataset, MultiTaskDataset)) for kind in kinds)


def registered(registry: Registry, kind: Any, scope: str) -> Any:
    """The class or function of a config's ``type``; ``None``: unknown."""
    with registry.switch_scope_and_registry(scope) as found:
        return found.get(kind) if isinstance(kind, str) else kind


def random_batch(cfg: Config, size: Size, count: int = 2,
                 seed: int = 0) -> dict:
    """A batch of random images and labels, as the config's loader gives it.

    Args:
        cfg: From :func:`with_size`.
        size: (H, W) of the images.
        count: Number of images.
        seed: Seed of images and labels.
    """
    generator = np.random.default_rng(seed)
    steps = [TRANSFORMS.build(step) for step in _format_steps(cfg)]
    images = []
    for _ in range(count):
        item = _item(cfg, size, generator)
        for step in steps:
            item = step(item)
        if cfg.default_scope == 'mmdet':
            # What the pipeline of the test packs, too.
            item['data_samples'].set_metainfo(dict(
                ori_shape=size, scale_factor=(1., 1.), border=(0.,) * 4))
        images.append(item)
    collate = (cfg.train_dataloader.get('collate_fn')
               or dict(type='pseudo_collate'))['type']
    return FUNCTIONS.get(collate)(images)


def _item(cfg: Config, size: Size, generator: np.random.Generator) -> dict:
    """An image with its labels, as the last step of a pipeline gets it."""
    classes = num_classes(cfg)
    item = dict(
        img=generator.integers(256, size=(*size, num_channels(cfg)),
                               dtype=np.uint8),
        img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1., 1.),
        flip=False, flip_direction=None, img_path='random', sample_idx=0)
    if cfg.default_scope == 'mmseg':
        # Blocks of four pixels, so that there are regions and edges.
        height, width = (-(-side // 4) for side in size)
        labels = generator.integers(classes, size=(height, width),
                                    dtype=np.uint8)
        labels = labels.repeat(4, 0).repeat(4, 1)[:size[0], :size[1]].copy()
        labels[0] = _IGNORED
        item.update(gt_seg_map=labels, seg_fields=['gt_seg_map'],
                    seg_map_path='random', reduce_zero_label=False)
    elif cfg.default_scope == 'mmdet':
        # A data set that mixes images has the annotations loaded inside it.
        steps = [step for part in _datasets(cfg.train_dataloader.dataset)
                 for step in part.get('pipeline') or ()]
        item.update(objects.objects(cfg, size, steps, generator))
    elif has_several_labels(cfg):
        item['gt_label'] = generator.choice(classes, 2, replace=False)
    else:
        item['gt_label'] = int(generator.integers(classes))
    return item
