"""Data of a plan's runs: tiny data sets are written, others looked for."""

from __future__ import annotations

import os
from pathlib import Path

from mmkd_rl.utils import data_files
from paper_tables import images, scales, tiny_data
from paper_tables.plan import Plan
from paper_tables.scales import Scale


def write_tiny_data(plan: Plan, scale: Scale) -> None:
    """Write the tiny data sets of detectors and segmentors that are
    missing."""
    for run in plan.needed():
        if scale.shrink is not None and \
                run.config.get('default_scope') in scales.DENSE:
            root = Path(run.config.data_root)
            if not root.is_dir():
                # Renamed when it is whole, in case this is interrupted.
                part = root.with_name(f'{root.name}.part')
                tiny_data.write(tiny_data.kind_of(run.config), part)
                part.rename(root)


def check_data(plan: Plan) -> None:
    """Check before the training whether the images are there.

    Raises:
        FileNotFoundError: A folder is missing or empty, or see
            :func:`mmkd_rl.utils.data_files.check_data`.
    """
    for run in plan.needed():
        if run.done():
            continue
        if run.config.get('default_scope') in scales.DENSE:
            data_files.check_data(run.config, ('train', 'val'))
            continue
        for folder in images.folders(run.config):
            path = Path(folder)
            if not path.is_dir() or next(path.iterdir(), None) is None:
                here = f'no images in {folder!r} (from {os.getcwd()}). Put '
                root = str(run.config.get('data_root', '')).rstrip('/')
                if folder.rstrip('/') == root:
                    raise FileNotFoundError(
                        f"{here}torchvision's files there, or give the folder "
                        'that holds them as --data-root; which: '
                        'configs/knowledge_flow/README.md')
                raise FileNotFoundError(
                    f'{here}the class folders there, or give the folder that '
                    f'holds {path.name!r} as --data-root; how to make them: '
                    'configs/cifar100/README.md (CIFAR-100), '
                    'configs/imagenet/README.md (ImageNet)')
