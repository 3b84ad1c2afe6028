"""Draw what trained detectors or segmentors see in the same images.

A row is an image of the validation data, the first column what is there, and
each other column what one model predicts, with the number of objects or the
share of pixels that are right in this image:

    python tools/analysis/compare_predictions.py \
        'random=work_dirs/a' 'MTKD-RL=work_dirs/b' --images 4

A model is NAME=WORK_DIR, with the config that was run and its last checkpoint,
or NAME=CONFIG:CHECKPOINT.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

import mmkd_rl  # noqa: F401  (registers the scope mmkd_rl)
from mmkd_rl.engine.hooks.load_report_hook import watch_loading
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.cli import Stage, check_checkpoint, clear_errors
from mmkd_rl.utils.configs import class_name, load_config
from mmkd_rl.utils.data_files import check_data
from mmkd_rl.visualization import scenes

_FORMS = ('NAME=WORK_DIR or NAME=CONFIG:CHECKPOINT, such as '
          "'MTKD-RL=work_dirs/mtkd_rl'")
TRUTH = 'ground truth'


@dataclass(frozen=True)
class Run:
    """A trained model.

    Attributes:
        name: Title of its column.
        cfg: Config of its training.
        checkpoint: Path of its weights.
    """
    name: str
    cfg: Config
    checkpoint: str


@dataclass(frozen=True)
class Data:
    """Validation data.

    Attributes:
        dataset: The toolbox's data set.
        detects: Whether it has objects; otherwise it has maps of classes.
        classes: Names of the C classes.
        palette: The data set's own colours.
    """
    dataset: Any
    detects: bool
    classes: tuple[str, ...]
    palette: Sequence[Sequence[int]] | None


# ---- runs ----------------------------------------------------------------


def read_run(text: str) -> Run:
    """A run from ``NAME=WORK_DIR`` or ``NAME=CONFIG:CHECKPOINT``.

    Raises:
        ValueError: ``text`` is of neither form, or the folder has no config
            or several.
        FileNotFoundError: No such config, or no checkpoint.
    """
    name, equals, rest = text.partition('=')
    if not equals or not name.strip() or not rest:
        lack = 'no "="' if not equals else 'no name' if rest else 'no folder'
        raise ValueError(f'{text!r} has {lack}; write {_FORMS}')
    key = f'{name.strip()}: '
    if os.path.isdir(os.path.expanduser(rest)):
        checkpoint = checkpoint_io.last_checkpoint(rest, f'{key}work dir')
        config = _config_in(Path(rest).expanduser(), key)
    else:
        match = re.fullmatch(r'((?:\w+::)?[^:]+):(.+)', rest)
        if match is None:
            raise FileNotFoundError(
                f'{key}{rest!r} is not a folder; write {_FORMS}')
        config = match[1]
        checkpoint = checkpoint_io.last_checkpoint(
            match[2], f'{key}checkpoint')
    check_checkpoint(checkpoint, f'{key}checkpoint')
    cfg = load_config(config, f'{key}config')
    # A run without validation (--no-validate) can still be tested.
    cfg.val_dataloader = cfg.get('val_dataloader') or cfg.get(
        'test_dataloader')
    for part in ('model', 'val_dataloader'):
        if not cfg.get(part):
            raise ValueError(f'{key}{config!r} has no {part}')
    return Run(name.strip(), cfg, checkpoint)


def _config_in(folder: Path, key: str) -> str:
    """The config that was run in a work directory: that of
    ``tools/reproduce.py``, or the one that MMEngine wrote."""
    if (folder / 'config.py').is_file():
        return str(folder / 'config.py')
    found = sorted(folder.glob('*.py'))
    if len(found) != 1:
        has = ', '.join(p.name for p in found) or 'none'
        raise ValueError(
            f'{key}{str(folder)!r} must have one config (*.py), and has '
            f'{has}; write NAME=CONFIG:CHECKPOINT')
    return str(found[0])


# ---- data ----------------------------------------------------------------


def read_data(runs: Sequence[Run]) -> Data:
    """The validation data of all runs, read once.

    Raises:
        ValueError: The data are of another kind than detectors' and
            segmentors', or the runs have different ones.
    """
    first = runs[0]
    facts = _facts(first)
    for run in runs[1:]:
        for what, value in _facts(run).items():
            if value != facts[what]:
                raise ValueError(
                    'all models must have the same validation data, and '
                    f'{what} is {facts[what]} for {first.name!r} and {value} '
                    f'for {run.name!r}')
    check_data(first.cfg, ['val'])
    dataset = _build_data(first)
    return Data(dataset, _detects(dataset, first), dataset.metainfo['classes'],
                dataset.metainfo.get('palette'))


def _build_data(run: Run, **options: Any) -> Any:
    init_default_scope(run.cfg.get('default_scope') or 'mmengine')
    return DATASETS.build(
        {**copy.deepcopy(run.cfg.val_dataloader.dataset), **options})


def _facts(run: Run) -> dict[str, Any]:
    """What must be equal in the data of all models, by name. The pipelines
    may differ: a model may want larger images than another one."""
    dataset = _build_data(run, lazy_init=True)
    _detects(dataset, run)
    prefix = dataset.data_prefix
    return {
        'the class of the data set': type(dataset).__name__,
        'the annotation file': _real(dataset.ann_file),
        'the folder': {k: _real(v) for k, v in prefix.items()},
        'the list of classes': dataset.metainfo.get('classes'),
        'the selection of images (indices)': dataset._indices,
    }


def _real(path: str | None) -> str | None:
    return os.path.realpath(path) if path else path


def _detects(dataset: Any, run: Run) -> bool:
    """Whether a data set is MMDetection's.

    Raises:
        ValueError: It is MMSegmentation's neither.
    """
    bases = {base.__name__ for base in type(dataset).__mro__}
    if 'BaseDetDataset' in bases:
        return True
    if 'BaseSegDataset' in bases:
        return False
    raise ValueError(
        f'{run.name}: the validation data are {type(dataset).__name__}; only '
        'detectors of MMDetection and segmentors of MMSegmentation can be '
        'compared')


def choose(count: int, images: int, indices: Sequence[int] | None
           ) -> list[int]:
    """Indices of the images to draw.

    Args:
        count: Number of images in the data.
        images: How many of the first ones are drawn, at most all.
        indices: Which ones instead.

    Raises:
        ValueError: An index is not in 0..count-1, or ``images`` < 1.
    """
    if indices is None:
        if images < 1:
            raise ValueError(f'--images must be at least 1, got {images}')
        return list(range(min(images, count)))
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f'--indices must be in 0..{count - 1}, got '
                             f'{index}: the validation data have {count} '
                             'images')
    return list(indices)


def read_truth(data: Data, index: int, image: np.ndarray,
               masks: bool) -> scenes.Seen:
    """What is in an image according to its annotations.

    Args:
        data: The validation data.
        index: Number of the image.
        image: Its pixels, [H, W, 3].
        masks: Also read the objects' masks.

    Raises:
        ValueError: There are no annotations.
    """
    info = data.dataset.get_data_info(index)
    if data.detects:
        info['ori_shape'] = image.shape[:2]
        info = TRANSFORMS.build(
            dict(type='mmdet.LoadAnnotations', with_mask=masks))(info)
        return scenes.Instances(
            labels=info['gt_bboxes_labels'],
            boxes=info['gt_bboxes'].tensor.numpy().reshape(-1, 4),
            masks=info['gt_masks'].masks.astype(bool) if masks else None,
            crowds=info['gt_ignore_flags'])
    if not info.get('seg_map_path'):
        raise ValueError(f'{info["img_path"]!r} has no label map '
                         '(val_dataloader.dataset.data_prefix.seg_map_path)')
    info = TRANSFORMS.build(dict(type='mmseg.LoadAnnotations'))(info)
    return scenes.ClassMap(info['gt_seg_map'].astype(np.int64))


# ---- models --------------------------------------------------------------


def predict(run: Run, paths: Sequence[str], detects: bool,
            score_thr: float) -> list[scenes.Seen]:
    """What a model sees in images.

    Args:
        run: The model.
        paths: Files of the images.
        detects: Whether it is a detector; otherwise it is a segmentor.
        score_thr: Smallest score of a detector's objects.
    """
    model = open_model(run, detects)
    if detects:
        from mmdet.apis import inference_detector
        return [objects(inference_detector(model, path), score_thr, run.name)
                for path in paths]
    from mmseg.apis import inference_model
    return [scenes.ClassMap(inference_model(
        model, path).pred_sem_seg.data[0].cpu().numpy()) for path in paths]


def objects(result: Any, score_thr: float, name: str) -> scenes.Instances:
    """Objects of a detector's result.

    Args:
        result: A data sample with ``pred_instances``.
        score_thr: Smallest score.
        name: Name of the model, for the message.

    Raises:
        ValueError: The model predicts something else.
    """
    if 'pred_instances' not in result:
        raise ValueError(f'{name}: the model predicts no objects but '
                         f'{result.keys()}')
    found = result.pred_instances.cpu()
    found = found[found.scores >= score_thr]
    return scenes.Instances(
        labels=found.labels.numpy(), boxes=found.bboxes.numpy(),
        scores=found.scores.numpy(),
        masks=np.asarray(found.masks, bool) if 'masks' in found else None)


def open_model(run: Run, detects: bool) -> nn.Module:
    """Build a model by its toolbox and load its weights.

    Raises:
        ValueError: The checkpoint lacks weights of the model.
    """
    cfg = copy.deepcopy(run.cfg)
    # A distilled model's weights have the names of the student's own.
    if class_name(cfg.model.get('type')) == 'MultiTeacherDistiller':
        distilled, cfg.model = cfg.model, cfg.model.student
        if isinstance(cfg.model, str):
            cfg.model = load_config(cfg.model, 'model.student').model
        if distilled.get('data_preprocessor'):
            cfg.model.data_preprocessor = distilled.data_preprocessor
    if not cfg.model.get('data_preprocessor') and cfg.get('data_preprocessor'):
        cfg.model.data_preprocessor = cfg.data_preprocessor
    # Both toolboxes look for the steps of an image under these names.
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_pipeline = [
        step for step in cfg.val_dataloader.dataset.pipeline
        if class_name(step.get('type')) != 'LoadAnnotations']
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    # No checkpoint yet: the toolboxes only log that weights are missing.
    if detects:
        from mmdet.apis import init_detector
        with warnings.catch_warnings(record=True) as said:
            model = init_detector(cfg, device=device)
        for warning in said:
            # "checkpoint is None, use COCO classes": they are not used here.
            if 'checkpoint is None' not in str(warning.message):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename,
                    warning.lineno)
    else:
        from mmseg.apis import init_model
        model = init_model(cfg, device=device)
    watch_loading(model, 'checkpoint', run.checkpoint)
    load_checkpoint(model, run.checkpoint, map_location='cpu')
    return model


# ---- picture -------------------------------------------------------------


def compare(models: Sequence[str],
            images: int = 4,
            indices: Sequence[int] | None = None,
            score_thr: float = .4,
            truth: str = TRUTH,
            title: str = '',
            names: bool = False,
            stage: Stage | None = None) -> Figure:
    """Draw validation images with the truth and each model's predictions.

    Args:
        models: ``NAME=WORK_DIR`` or ``NAME=CONFIG:CHECKPOINT`` each.
        images: Number of images, the first ones.
        indices: Numbers of the images instead.
        score_thr: Smallest score of a detector's objects.
        truth: Title of the column of the truth.
        title: Title of the figure.
        names: Write the class at each box.
        stage: Is told the config, for messages.

    Raises:
        ValueError, FileNotFoundError: An argument is wrong.
    """
    if not 0 <= score_thr <= 1:
        raise ValueError(f'--score-thr must be in 0..1, got {score_thr}')
    runs = [read_run(text) for text in models]
    titles = [truth, *(run.name for run in runs)]
    if again := {name for name in titles if titles.count(name) > 1}:
        raise ValueError(f'names must differ, and {sorted(again)} is given '
                         'to two columns')
    if stage is not None:
        stage.cfg = runs[0].cfg
    data = read_data(runs)
    chosen = choose(len(data.dataset), images, indices)
    paths = [data.dataset.get_data_info(n)['img_path'] for n in chosen]
    seen = {run.name: predict(run, paths, data.detects, score_thr)
            for run in runs}
    masks = any(isinstance(s, scenes.Instances) and s.masks is not None
                for column in seen.values() for s in column)
    pixels = [mmcv.imread(path, channel_order='rgb') for path in paths]
    there = [read_truth(data, n, image, masks)
             for n, image in zip(chosen, pixels)]
    return scenes.draw_scenes(
        pixels, {truth: there, **seen}, data.classes,
        scenes.class_colours(len(data.classes), data.palette), title, names)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', metavar='MODEL',
                        help='NAME=WORK_DIR or NAME=CONFIG:CHECKPOINT')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--images', type=int, default=4, metavar='N',
                       help='draw the first N images (default: 4)')
    which.add_argument('--indices', type=int, nargs='+', metavar='I',
                       help='draw these images of the validation data')
    parser.add_argument('--score-thr', type=float, default=.4,
                        help="smallest score of a detector's objects "
                        '(default: 0.4)')
    parser.add_argument('--title', default='', help='title of the picture')
    parser.add_argument('-o', '--out', default='side_by_side.png',
                        help='picture to write (default: side_by_side.png)')
    args = parser.parse_args(argv)
    with clear_errors() as stage:
        figure = compare(args.models, args.images, args.indices,
                         args.score_thr, title=args.title, stage=stage)
        try:
            figure.savefig(args.out, dpi=120)
        except (OSError, ValueError) as error:
            raise ValueError(f'--out {args.out!r}: {error}') from error
    print(args.out)


if __name__ == '__main__':
    main()
