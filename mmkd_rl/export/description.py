"""Configs of a student's backbone and preprocessor in checkpoints.

MMEngine writes the config of a run into its checkpoints, as text. The text is
parsed and never executed, because checkpoints may come from anywhere.
"""

from __future__ import annotations

import ast
import json
from contextlib import suppress
from typing import Any

from mmkd_rl.utils.configs import class_name

#: Where an export keeps the configs of its backbone and preprocessor.
META = 'student'


def described(meta: dict) -> dict[str, Any]:
    """The entry of an export's ``meta`` with the configs of the student's
    backbone and preprocessor, as JSON; empty if they are not known.

    Args:
        meta: ``meta`` of the run's checkpoint.
    """
    backbone, preprocessor = student_configs(meta)
    known = dict(backbone=backbone, data_preprocessor=preprocessor)
    return {META: json.dumps(known)} if backbone else {}


def data_facts(meta: dict) -> dict[str, Any]:
    """What the toolboxes' inference reads from ``meta``: the names of the
    classes, and the colours, of the training data; empty if they are not
    known.

    Args:
        meta: ``meta`` of the run's checkpoint.
    """
    facts = meta.get('dataset_meta') or {}
    known = {k: _plain(v) for k, v in facts.items()
             if k in ('classes', 'palette') and v is not None}
    return dict(dataset_meta=known) if known else {}


def _plain(value: Any) -> Any:
    """Lists, numbers and strings in place of arrays and tuples."""
    if hasattr(value, 'tolist'):
        value = value.tolist()
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) \
        else value


def student_configs(meta: dict) -> tuple[dict | None, dict | None]:
    """Read the configs of the student's backbone and preprocessor.

    Args:
        meta: ``meta`` of the checkpoint of a run, or of an export.

    Returns:
        The config of the backbone and that of the preprocessor; ``None`` if
        the checkpoint does not contain it.
    """
    if META in meta:
        known = json.loads(meta[META])
        return known['backbone'], known['data_preprocessor']
    if not isinstance(meta.get('cfg'), str):
        return None, None
    cfg = read_settings(meta['cfg'])
    model = cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or \
        cfg.get('data_preprocessor')
    while isinstance(model.get('student'), dict):
        model = model['student']
        # As in the builder: the student's own comes first.
        preprocessor = model.get('data_preprocessor') or preprocessor
    if preprocessor is not None:
        preprocessor = _as_of_files(preprocessor, cfg)
    backbone = model.get('backbone')
    if isinstance(backbone, dict) and class_name(
            backbone.get('type')) == 'KnowledgeFlowBackbone':
        backbone = backbone.get('student')
    if not isinstance(backbone, dict) or 'type' not in backbone:
        return None, preprocessor
    backbone = {k: v for k, v in backbone.items() if k != 'init_cfg'}
    scope = cfg.get('default_scope')
    if '.' not in backbone['type'] and scope:
        backbone['type'] = f'{scope}.{backbone["type"]}'
    return backbone, preprocessor


def trained_preprocessor(meta: dict) -> dict | None:
    """Config of the data preprocessor of the run that wrote a checkpoint, as
    it stands in the run's config; ``None``: not known.

    Args:
        meta: ``meta`` of the checkpoint.
    """
    if not isinstance(meta.get('cfg'), str):
        return None
    cfg = read_settings(meta['cfg'])
    model = cfg.get('model')
    model = model if isinstance(model, dict) else {}
    found = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    while isinstance(model.get('student'), dict):
        model = model['student']
        found = model.get('data_preprocessor') or found
    return found if isinstance(found, dict) else None


#: Steps of pipelines that give images their size, and its option.
_SIZES = {'RandomResizedCrop': 'scale', 'RandomCrop': 'crop_size',
          'CenterCrop': 'crop_size', 'EfficientNetRandomCrop': 'scale',
          'EfficientNetCenterCrop': 'crop_size', 'Resize': 'scale'}


def trained_side(meta: dict) -> int | None:
    """The shorter side of the images, in pixels, with which the run that wrote
    a checkpoint was trained, from the last step of its pipeline that sets a
    size; ``None``: not known.

    Args:
        meta: ``meta`` of the checkpoint.
    """
    if not isinstance(meta.get('cfg'), str):
        return None
    found: Any = read_settings(meta['cfg']).get('train_dataloader')
    while isinstance(found, dict) and isinstance(found.get('dataset'), dict):
        found = found['dataset']
    steps = found.get('pipeline') if isinstance(found, dict) else None
    side = None
    for step in steps if isinstance(steps, list) else ():
        kind = class_name(step.get('type')) if isinstance(step, dict) else ''
        size = step.get(_SIZES[kind]) if kind in _SIZES else None
        sizes = size if isinstance(size, (list, tuple)) else [size]
        if sizes and all(isinstance(v, int) and v > 0 for v in sizes):
            side = min(sizes)
    return side


def _as_of_files(preprocessor: dict, cfg: dict) -> dict:
    """A preprocessor for images that are read from files, in BGR order.

    Data sets that hold their images as arrays, such as CIFAR, have them in RGB
    order; there ``to_rgb=False`` keeps this order.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    while isinstance(dataset, dict) and isinstance(
            dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    steps = dataset.get('pipeline') if isinstance(dataset, dict) else None
    if not isinstance(steps, list) or not steps or any(
            class_name(step.get('type')) == 'LoadImageFromFile'
            for step in steps):
        return preprocessor
    swaps = preprocessor.get('to_rgb', preprocessor.get('bgr_to_rgb', False))
    rest = {k: v for k, v in preprocessor.items() if k != 'bgr_to_rgb'}
    return dict(rest, to_rgb=not swaps)


def read_settings(text: str) -> dict[str, Any]:
    """Parse those settings of a config's text that are plain values. The text
    is not executed.

    >>> read_settings("a = dict(b=[1, None])\\nc = open('x')")
    {'a': {'b': [1, None]}}

    Args:
        text: Text of a config, as MMEngine writes it into checkpoints.
    """
    settings = {}
    with suppress(SyntaxError):
        for line in ast.parse(text).body:
            if isinstance(line, ast.Assign) and isinstance(
                    line.targets[0], ast.Name):
                with suppress(ValueError):
                    settings[line.targets[0].id] = _value(line.value)
    return settings


def _value(node: ast.expr) -> Any:
    """Value of a literal in which dicts may be written as ``dict(...)``.

    Raises:
        ValueError: Another expression.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and \
            node.func.id == 'dict' and not node.args and all(
                k.arg for k in node.keywords):
        return {str(k.arg): _value(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict) and all(node.keys):
        return {ast.literal_eval(k): _value(v)  # type: ignore[arg-type]
                for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.List):
        return [_value(v) for v in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(v) for v in node.elts)
    return ast.literal_eval(node)
