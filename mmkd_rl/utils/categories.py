"""Compare the classes of a config with the categories of a COCO file.

MMDetection's COCO data sets leave out objects whose category is not among the
classes, so that with wrong names no object is left, and number the classes in
the order of the file, whatever their order in the config.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

_START = re.compile(rb'"categories"\s*:\s*(?=\[)')
#: Longest list of categories that is read, in bytes; LVIS has 300,000.
_LONGEST = 1 << 22


def check_categories(dataset: Any, key: str) -> None:
    """Compare names; data sets of other formats pass.

    Args:
        dataset: A data set that has read nothing.
        key: Key of its config, for messages.

    Raises:
        ValueError: None of the classes is a category of the file, or
            ``classes`` is a text.
    """
    if not hasattr(type(dataset), 'COCOAPI'):
        return
    given = dataset.metainfo.get('classes')
    if isinstance(given, str):
        raise ValueError(
            f'{key}.metainfo.classes is the text {given!r}, of which each '
            f'letter would be a class; write classes=({given!r}, )')
    names = _categories(dataset.ann_file)
    if not names or not given:
        return
    found = [n for n in names if n in given]
    if not found:
        raise ValueError(
            f'{dataset.ann_file!r} has the categories {_some(names)}, and '
            f"none of the config's classes, {_some(given)}: no object would "
            f'be left. Set {key}.metainfo=dict(classes=(...)) to those of the '
            'file (and likewise in the other data loaders), and num_classes '
            'of the heads to their number')
    if lacking := [n for n in given if n not in names]:
        _warn(f'{dataset.ann_file!r} has no category {_some(lacking)} of '
              f"{key}.metainfo['classes']; it has {_some(names)}. Classes "
              'after the first of these get other indices')
    elif found != list(given):
        _warn(f'{dataset.ann_file!r} has the categories in the order '
              f'{_some(found)}, and {key}.metainfo in the order '
              f'{_some(given)}. MMDetection numbers classes in the order of '
              'the file; names in results and in checkpoints will be wrong')


def _categories(path: str) -> list[str]:
    """Names of a file's categories, in its order; empty: none found. Only this
    part of the file is parsed."""
    try:
        with open(path, 'rb') as file, mmap.mmap(
                file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = _START.search(content)
            if start is None:
                return []
            text = content[start.end():start.end() + _LONGEST]
        found, _ = json.JSONDecoder().raw_decode(text.decode(errors='replace'))
        return [str(c['name']) for c in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # MMDetection says what is wrong with the file


def _some(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names[:5])) + (', ...' if len(names) > 5
                                              else '')


def _warn(text: str) -> None:
    # There is no logger yet.
    print_log(f'WARNING: {text}')
