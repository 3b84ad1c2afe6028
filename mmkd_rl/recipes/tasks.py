"""Which task adapter fits a student and its teachers, from their configs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmengine.logging import print_log
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import MultiLabelClsHead, MultiTaskHead

from mmkd_rl.options import ConfigError
from mmkd_rl.recipes.fitting import on_meta
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks.dense_scores import DenseScores, scores_of
from mmkd_rl.teachers.loading import build_network, load_model_config
from mmkd_rl.teachers.sources import expand
from mmkd_rl.utils.configs import class_name

#: Decode heads of MMSegmentation whose last layer gives no scores of classes
#: for a grid of pixels: they predict masks, or points.
_MASK_HEADS = {
    'IterativeDecodeHead', 'Mask2FormerHead', 'MaskFormerHead', 'PointHead',
    'SegmenterMaskTransformerHead', 'SideAdapterCLIPHead', 'VPDDepthHead'
}
_KINDS = dict(classifier='classifies images', segmentor='segments images',
              detector='detects objects', other='does something else')
#: Bases of models, by name: their packages may not be installed.
_BASES = dict(segmentor='BaseSegmentor', detector='BaseDetector')


def choose_task(student: Mapping, scope: str | None,
                teachers: Sequence[dict]) -> dict | None:
    """The config of the task adapter for a student and its teachers; ``None``:
    the default, classification of images with one label.

    Segmentors with scores for each pixel: :class:`SegmentationTask`.
    Detectors: :class:`DetectionTask`, with scores where all networks have them
    for the same anchors. Other models, and where the student or a teacher has
    no softmax scores (masks, sigmoids, several labels or tasks):
    :class:`FeatureTask`, of segmentors and classifiers with the last map
    alone, since backbones have different numbers of levels.

    Args:
        student: Config of the student's model.
        scope: Default scope of its config.
        teachers: The teachers' dicts.

    Raises:
        ConfigError: A teacher does another task than a segmentor.
        ValueError, FileNotFoundError: The config of a teacher cannot be read.
    """
    kind = kind_of(student, scope)
    if kind == 'other':
        return dict(type='FeatureTask')
    if kind == 'detector':
        return dict(type='DetectionTask',
                    scores=share_scores(student, scope, teachers))
    why_not = _WHY_NO_SCORES[kind]
    without = {}
    if (reason := why_not(student, scope)) is not None:
        without['the student'] = reason
    for teacher in teachers:
        key = f'teacher {teacher["name"]!r}'
        config, own = teacher_model(teacher)
        if not config:
            continue
        other = kind_of(config, own or scope)
        if kind == 'segmentor' and other != kind:
            raise ConfigError(
                key, f'its model ({class_name(config["type"])}) '
                f'{_KINDS[other]}, but the student '
                f'({class_name(student["type"])}) segments them; give a '
                'segmentor, or distil features alone with '
                "task=dict(type='FeatureTask') (on the command line: --task "
                'FeatureTask)')
        if (reason := why_not(config, own or scope)) is not None:
            without[key] = reason
    if not without:
        return dict(type='SegmentationTask') if kind == 'segmentor' else None
    for name, reason in without.items():
        # There is no logger yet.
        print_log(f'{name} {reason}, so features alone are distilled')
    return dict(type='FeatureTask', levels='last')


def share_scores(student: Mapping, scope: str | None,
                 teachers: Sequence[dict]) -> bool:
    """Whether a detector and all its teachers have class scores for the same
    anchors or points, found from the configs of their heads.

    Args:
        student, scope, teachers: See :func:`choose_task`.

    Raises:
        ValueError, FileNotFoundError: The config of a teacher cannot be read.
    """
    own = _dense_scores(student, scope)
    if isinstance(own, str):
        print_log(f'the student: {own}, so features alone are distilled')
        return False
    for teacher in teachers:
        if teacher.get('input_size') is not None or \
                teacher.get('input_scale', 1) != 1:
            print_log(f'teacher {teacher["name"]!r} sees images in another '
                      'size, so its anchors mean other boxes, and features '
                      'alone are distilled')
            return False
        config, found = teacher_model(teacher)
        theirs = _dense_scores(config, found or scope)
        same = not isinstance(theirs, str) and (
            theirs == own or teacher.get('class_map') is not None and
            replace(theirs, classes=own.classes) == own)
        if not same:
            print_log(f'teacher {teacher["name"]!r}: {theirs}; the student: '
                      f'{own}. These scores cannot be compared, so features '
                      'alone are distilled')
            return False
    return True


def _dense_scores(model: Mapping, scope: str | None) -> DenseScores | str:
    """Meaning of the class scores of a detector's dense head; a text that
    says why the detector has no such scores, if so."""
    head = model.get('bbox_head')
    if not isinstance(head, Mapping):
        return scores_of(None)
    def found() -> DenseScores | str:
        # A copy: DETR's head changes the config of its loss.
        return scores_of(build_network(
            {**copy.deepcopy(head), 'train_cfg': None,
             'test_cfg': model.get('test_cfg')}, scope, 'bbox_head'))

    try:
        return on_meta(found)
    except (ValueError, TypeError, AssertionError, AttributeError, KeyError,
            RuntimeError) as error:
        # The builder of the whole model says what is wrong, if anything is.
        return f'{class_name(head.get("type"))} alone cannot be built: {error}'


def teacher_model(teacher: Mapping) -> tuple[dict, str | None]:
    """Config and scope of a teacher's model; an empty config if the teacher
    has none, which the builder refuses.

    Raises:
        ValueError, FileNotFoundError: The config cannot be read.
    """
    key = f'teacher {teacher.get("name")!r}'
    config = expand(teacher, key).get('config')
    return ({}, None) if config is None else load_model_config(
        config, f'{key}: config')


def kind_of(model: Mapping, scope: str | None) -> str:
    """``'classifier'``, ``'segmentor'``, ``'detector'`` or ``'other'``;
    unknown types, which the builder refuses, are taken for classifiers."""
    kind = _found(model, scope)
    if kind is object or issubclass(kind, BaseClassifier):
        return 'classifier'
    bases = {base.__name__ for base in kind.__mro__}
    return next((name for name, base in _BASES.items() if base in bases),
                'other')


def _several_labels(model: Mapping, scope: str | None) -> str | None:
    """Why a classifier's scores are not those of a softmax over classes;
    ``None``: they are."""
    head = model.get('head') or {}
    kind = _found(head, scope)
    if not issubclass(kind, (MultiLabelClsHead, MultiTaskHead)):
        return None
    if (head.get('loss') or {}).get('use_soft'):
        # MMPretrain's configs with mixup or cutmix: such a head takes mixed
        # labels, and its loss is that of a softmax.
        return None
    return f'has {class_name(kind)}, which scores each label by itself'


def _no_pixel_scores(model: Mapping, scope: str | None) -> str | None:
    """Why a segmentor has no scores for each pixel; ``None``: it has."""
    head = model.get('decode_head')
    heads = head if isinstance(head, (list, tuple)) else [head]
    named = [h for h in heads if isinstance(h, Mapping) and
             class_name(h.get('type')) not in _MASK_HEADS]
    if not named:
        names = [class_name(h.get('type')) for h in heads
                 if isinstance(h, Mapping)] or ['no decode head']
        return f'has {", ".join(names)}, which gives no scores for each pixel'
    last = named[-1]
    losses = last.get('loss_decode')
    losses = losses if isinstance(losses, (list, tuple)) else [losses]
    # A single channel is the score of one of two classes.
    if 1 not in (last.get('out_channels'), last.get('num_classes')) and all(
            _uses_sigmoid(loss, scope) for loss in losses):
        return 'predicts each class with a sigmoid of its own'
    return None


def _uses_sigmoid(loss: Any, scope: str | None) -> bool:
    """Whether a loss takes scores through a sigmoid: as its config says, or
    its class (MMSegmentation's focal and dice losses do, if nothing is
    said)."""
    if not isinstance(loss, Mapping):
        return False
    if 'use_sigmoid' in loss:
        return bool(loss['use_sigmoid'])
    default = inspect.signature(_found(loss, scope)).parameters.get(
        'use_sigmoid')
    return default is not None and default.default is True


def _found(config: Mapping, scope: str | None) -> Any:
    """The class of a part of a model; ``object`` if it is unknown, which the
    builder refuses."""
    with MODELS.switch_scope_and_registry(scope or 'mmpretrain') as registry:
        kind: Any = config.get('type')
        kind = registry.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else object


#: For each kind of model: why it has no softmax scores of classes, if so.
_WHY_NO_SCORES = dict(classifier=_several_labels, segmentor=_no_pixel_scores)
