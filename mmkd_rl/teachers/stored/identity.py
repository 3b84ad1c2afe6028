"""Describes the teacher and the data that stored outputs belong to.

A store with another description is refused.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from mmkd_rl.datasets import RepeatableViews
from mmkd_rl.options import ConfigError
from mmkd_rl.teachers.stored.rows import RowFormat
from mmkd_rl.teachers.tapped import TappedNetwork
from mmkd_rl.utils.state_dicts import digest

#: Changes when the form of the files does.
FORMAT = 3
#: Packages on which images and outputs depend.
_PACKAGES = ('torch', 'torchvision', 'numpy', 'pillow', 'albumentations',
             'opencv-python', 'opencv-python-headless', 'timm', 'transformers',
             'mmcv', 'mmcv-lite', *(prefix + name for prefix in (
                 '', 'onedl-') for name in (
                     'mmcv', 'mmengine', 'mmpretrain', 'mmdetection', 'mmdet',
                     'mmsegmentation')))
#: Settings of data sets that have no influence on the images, or that show in
#: the names of the files.
_OTHERS = {'data_root', 'data_prefix', 'ann_file', 'lazy_init', '_scope_',
           'backend_args', 'file_client_args', 'serialize_data'}
_ADDRESS = re.compile(r' at 0x[0-9a-f]+')


@dataclass(frozen=True)
class StoredViews:
    """The views of images whose outputs are stored.

    Attributes:
        images: N, number of images.
        views: K, number of views of each image.
        identity: Description of the data, of values that JSON has.
    """
    images: int
    views: int
    identity: dict

    @classmethod
    def of(cls, data: RepeatableViews, padding: str = '') -> StoredViews:
        """The views of a data set.

        Args:
            data: The data set.
            padding: How the student's preprocessor pads images.
        """
        return cls(len(data), data.views, dict(
            images=len(data), seed=data.seed, data=_data(data),
            files=_files(data.dataset), padding=padding))

    def check(self, data: RepeatableViews) -> None:
        """Check that views come out the same a second time.

        Raises:
            ConfigError: A view differs when it is read again.
        """
        for index in {0, len(data) - 1, self.images * (self.views - 1)}:
            first, second = (data[index]['data_samples'].view_key.checksum
                             for _ in range(2))
            if first != second:
                raise ConfigError(
                    'train_dataloader.dataset', 'a view is not the same when '
                    'it is read again, so outputs of teachers cannot be '
                    'stored: a transform draws from a generator of its own, '
                    'or remembers earlier images. The pipeline is '
                    f'{getattr(data.dataset, "pipeline", None)}')


def identity_of(network: TappedNetwork, form: RowFormat,
                views: StoredViews, settings: dict) -> dict:
    """Description of a teacher and its data, of values that JSON has.

    Args:
        network: The teacher's network with its taps.
        form: How its outputs are stored.
        views: The images.
        settings: Further entries: the task, the levels, the class map.
    """
    found = dict(
        format=FORMAT, weights=digest(network.network.state_dict()),
        network=_short_digest(repr(network.network).encode()),
        taps=[f'{tap.path} ({tap.source}, {tap.index}, {tap.call})'
              for tap in network.taps],
        window=str(network.window), **settings,
        precision=network.precision or 'float32',
        input=network.adapter.description,
        features=form.kind, scores=form.scores, top_k=form.top_k,
        shapes=[form.features, form.logits, form.edges],
        libraries=_libraries(), **views.identity)
    return json.loads(json.dumps(found))  # lists in place of tuples


def _libraries() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _data(data: RepeatableViews) -> str:
    """Type, and digest of the config and the pipeline."""
    inner = data.dataset
    known = [type(inner).__name__, _settings(data.config),
             str(getattr(inner, 'pipeline', ''))]
    text = _ADDRESS.sub('', json.dumps(known, default=str))
    return f'{type(inner).__name__} {_short_digest(text.encode())}'


def _settings(config: Any) -> Any:
    """A config without the settings in :data:`_OTHERS`."""
    if isinstance(config, dict):
        return {k: _settings(v) for k, v in config.items() if k not in _OTHERS}
    return [_settings(v) for v in config] if isinstance(
        config, (list, tuple)) else config


def _files(data: Any) -> str:
    """Digest of the names of all image files, without their folders, which
    may be others on another machine; and of their labels, whose scores are
    stored."""
    names = blake2b(digest_size=8)
    if hasattr(data, 'get_data_info'):
        for i in range(len(data)):
            info = data.get_data_info(i)
            path = '/'.join(str(info.get('img_path', '')).split('/')[-2:])
            names.update(f'{path} {info.get("gt_label")}\0'.encode())
    return names.hexdigest()


def _short_digest(text: bytes) -> str:
    return blake2b(text, digest_size=8).hexdigest()

