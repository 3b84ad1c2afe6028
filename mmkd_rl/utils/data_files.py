"""Messages about files of data sets that are not there."""

from __future__ import annotations

import copy
import os
import os.path as osp
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from mmkd_rl.registry import DATASETS
from mmkd_rl.utils.categories import check_categories
from mmkd_rl.utils.configs import class_name

#: Folders of data sets, and the guides for preparing them.
_GUIDES = {
    'data/cifar100': 'configs/cifar100/README.md',
    'data/imagenet': 'configs/imagenet/README.md',
    'data/coco': 'configs/downstream/README.md',
    'data/cityscapes': 'configs/downstream/README.md',
    'data/ade': 'configs/downstream/README.md',
    'data/coco_stuff164k': 'configs/downstream/README.md',
    'data/bccd': 'configs/downstream/README.md',
    'data/camvid': 'configs/downstream/README.md',
}
_PATHS = ('data_root', 'data_prefix', 'ann_file')
_TOOLBOXES = ('mmdet', 'mmengine', 'mmpretrain', 'mmseg')
#: The name of the first image in the head of an annotation file: COCO's JSON,
#: or a list with an image a line.
_FIRST_NAME = re.compile(r'"file_name"\s*:\s*"([^"]+)"|\A\s*([^\s{\["]\S*)')


def check_data(cfg: Config, names: Iterable[str]) -> None:
    """Check that the files of data sets exist, before anything is built.

    The data sets are those of MMDetection, MMSegmentation and MMPretrain, also
    wrapped ones. Not checked are data that are downloaded or not on a local
    disk, and images if their paths may be absolute in the annotations.

    Args:
        cfg: A training config.
        names: Which data are used: ``'train'``, ``'val'``, ``'test'``.

    Raises:
        FileNotFoundError: There is no annotation file, no folder of images, or
            no label map of the first image, or a folder has no images.
        ValueError: See :func:`check_categories`.
    """
    scope = cfg.get('default_scope')
    for name in names:
        key = f'{name}_dataloader'
        loader = cfg.get(key)
        if not isinstance(loader, dict):
            continue
        for below, dataset in _datasets(loader.get('dataset'),
                                        f'{key}.dataset'):
            _check_dataset(dataset, below, scope)
        evaluator = cfg.get(f'{name}_evaluator')
        path = evaluator.get('ann_file') if isinstance(evaluator, dict) \
            and not _is_remote(evaluator) else None
        if isinstance(path, str) and _is_missing(path):
            raise FileNotFoundError(
                _no_file(path, f'{name}_evaluator.ann_file', {}, ''))


def _datasets(value: Any, key: str) -> Iterator[tuple[str, dict]]:
    """Key and config of a data set and of all data sets that it wraps."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _datasets(item, f'{key}.{index}')
    elif isinstance(value, dict):
        yield key, value
        for name in ('dataset', 'datasets'):
            yield from _datasets(value.get(name), f'{key}.{name}')


def _check_dataset(config: dict, key: str, scope: str | None) -> None:
    """See :func:`check_data`; ``key`` is that of the data set's config."""
    dataset = None if _is_remote(config) else _unread(config, scope)
    if dataset is None:
        return
    listed = dataset.ann_file
    prefix = dataset.data_prefix
    if not isinstance(listed, str) or not isinstance(prefix, dict):
        return  # several files, which few classes have
    if listed and _is_missing(listed):
        raise FileNotFoundError(_no_file(listed, 'ann_file', config, key))
    check_categories(dataset, key)
    name = next((n for n in ('img_path', 'img') if prefix.get(n)), None)
    if name is None:
        return
    if not osp.isdir(prefix[name]):
        if not listed or _names_are_relative(listed):
            raise FileNotFoundError(
                _no_file(prefix[name], f'data_prefix.{name}', config, key))
    elif not listed and hasattr(dataset, 'img_suffix'):
        _check_label_map(dataset, prefix[name], config, key)


def _check_label_map(dataset: Any, folder: str, config: dict,
                     key: str) -> None:
    """Check that an image and its label map exist where MMSegmentation lists
    a folder.

    MMEngine fails on an empty list of images with an error of NumPy, and a
    missing label map shows in a worker process.
    """
    suffix = dataset.img_suffix
    image = next(_files(folder, suffix), None)
    if image is None:
        raise FileNotFoundError(
            f'{folder!r} has no image *{suffix} '
            + _where('data_prefix.img_path', config, key) + _guide(folder))
    labels = dataset.data_prefix.get('seg_map_path')
    steps = config.get('pipeline') or ()
    if not labels or 'LoadAnnotations' not in [
            class_name(step.get('type')) for step in steps]:
        return
    path = osp.join(labels, osp.relpath(image, folder)[:-len(suffix)]
                    + dataset.seg_map_suffix)
    if _is_missing(path):
        raise FileNotFoundError(
            f'the label map of {image!r} is missing: ' + _no_file(
                path, 'data_prefix.seg_map_path', config, key))


def _files(folder: str, suffix: str) -> Iterator[str]:
    """Paths of the files below a folder whose names end in ``suffix``."""
    for at, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            # MMEngine's listing skips hidden files.
            if name.endswith(suffix) and not name.startswith('.'):
                yield osp.join(at, name)


def _unread(config: dict, scope: str | None) -> Any:
    """A data set that has read nothing, with the paths that it will read:
    ``ann_file``, ``data_prefix``.

    Returns:
        ``None`` for a class that is not of the three toolboxes.
    """
    scope = config.get('_scope_') or scope
    with DATASETS.switch_scope_and_registry(scope) as registry:
        kind = config.get('type')
        kind = registry.get(kind) if isinstance(kind, str) else kind
        if not isinstance(kind, type) or not issubclass(kind, BaseDataset):
            return None
        # A constructor of others may read files, which takes time.
        owner = next(c for c in kind.__mro__ if '__init__' in vars(c))
        if owner.__module__.partition('.')[0] not in _TOOLBOXES:
            return None
        options = copy.deepcopy({k: v for k, v in config.items()
                                 if k not in ('type', '_scope_')})
        try:
            return kind(**{**options, 'pipeline': [], 'lazy_init': True})
        except Exception:
            # Any error of a constructor: some of MMSegmentation assert,
            # without a message, that their folders exist.
            prefix = options.get('data_prefix') or {}
            paths = SimpleNamespace(
                data_root=options.get('data_root') or '',
                ann_file=options.get('ann_file') or '',
                data_prefix=prefix if isinstance(prefix, dict) else
                dict(img_path=prefix))
            BaseDataset._join_prefix(paths)  # type: ignore[arg-type]
            return paths


def _is_remote(config: dict) -> bool:
    """Whether a data set or a step of its pipeline names a storage other than
    the local disk."""
    if any('://' in str(config.get(key)) for key in _PATHS):
        return True
    for key in ('backend_args', 'file_client_args'):
        given = config.get(key) or {}
        if given.get('backend', 'local') not in ('local', 'disk'):
            return True
    return any(_is_remote(step) for step in config.get('pipeline') or ()
               if isinstance(step, dict))


def _is_missing(path: str) -> bool:
    return not osp.exists(osp.expanduser(path))


def _names_are_relative(ann_file: str) -> bool:
    """Whether an annotation file certainly names images below the folder."""
    if not osp.isfile(ann_file):
        return False
    with open(ann_file, 'rb') as file:
        head = file.read(1 << 16).decode(errors='ignore')
    found = _FIRST_NAME.search(head)
    return found is not None and not osp.isabs(found[1] or found[2])


def _no_file(path: str, setting: str, config: dict, key: str) -> str:
    return f'there is no {path!r} ' + _where(setting, config, key) + \
        _guide(path)


def _where(setting: str, config: dict, key: str) -> str:
    """End of a message about a path: its setting, and what to do.

    Args:
        setting: Option of the data set.
        config: Config of the data set; ``{}`` if the path is not of one.
        key: Key of this config; ``''`` likewise.
    """
    own = config.get(setting.partition('.')[0])
    # ImageNet's `split` sets both.
    named = setting if own or not config else 'data_root'
    full = f'{key}.{named}'.lstrip('.')
    folder = f'{key}.data_root' if config.get('data_root') else full
    return (f'({full}, looked for from {os.getcwd()}): put the data there, or '
            f'name their place: --cfg-options {folder}='
            f'{"FOLDER" if folder.endswith("data_root") else "PATH"} (and '
            'likewise in the other data loaders and evaluators)')


def _guide(path: str) -> str:
    """The guide for preparing a known data set, as the end of a message."""
    parts = Path(osp.normpath(path)).parts
    for folder, guide in _GUIDES.items():
        if parts[:2] == Path(folder).parts:
            return f'\n{guide} says how to prepare the data'
    return ''


def missing_data(error: BaseException, cfg: Config | None) -> str:
    """End of a message about a missing file of a data set: the setting with
    its folder, and the guide for preparing it. ``''`` for other errors."""
    path = getattr(error, 'filename', None)
    if not isinstance(error, FileNotFoundError) or not isinstance(path, str):
        return ''
    text = ''
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = (cfg or {}).get(name)
        found = loader and _setting_of(path, loader, name)
        if found:
            text = (f'\n{found[0]}={found[1]!r} (from {os.getcwd()}): put the '
                    'data there, or name their place: --cfg-options '
                    f'{found[0]}=FOLDER (and likewise in the other data '
                    'loaders)')
            break
    return text + _guide(path)


def _setting_of(path: str, cfg: dict, key: str) -> tuple[str, str] | None:
    """Key and value of the setting for the folder that contains the path."""
    for name, value in cfg.items():
        below = f'{key}.{name}'
        if isinstance(value, dict):
            found = _setting_of(path, value, below)
            if found:
                return found
        elif name in _PATHS and isinstance(
                value, str) and value and osp.normpath(
                    path).startswith(osp.normpath(value)):
            return below, value
    return None
