"""Draw predictions of trained detectors or segmentors for the same images.

A row is an image of the validation data, the first column the ground truth,
and each other column the predictions of a model, with the number of objects or
the share of pixels that are right in this image:

    python tools/compare_predictions.py \
        'random=work_dirs/a' 'MTKD-RL=work_dirs/b' --images 4

A model is NAME=WORK_DIR, with the config that was run and its last checkpoint,
or NAME=CONFIG:CHECKPOINT. With --weights, the weight of each teacher on each
image stands below the panels of distilled models.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mmcv
import numpy as np
from matplotlib.figure import Figure
from mmengine.registry import TRANSFORMS

import mmkd_rl  # noqa: F401  (registers the scope mmkd_rl)
from analysis.pictures import add_image_options, choose
from analysis.teacher_weights import teacher_weights
from analysis.trained_models import (
    Run,
    build_data,
    is_distilled,
    open_model,
    read_run,
)
from mmkd_rl.utils.cli import Stage, clear_errors
from mmkd_rl.utils.data_files import check_data
from mmkd_rl.visualization.command import write_picture
from mmkd_rl.visualization.predictions import ClassMap, Instances, Seen
from mmkd_rl.visualization.scenes import class_colours, draw_scenes

TRUTH = 'ground truth'


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
    dataset = build_data(first)
    return Data(dataset, _detects(dataset, first), dataset.metainfo['classes'],
                dataset.metainfo.get('palette'))


def _facts(run: Run) -> dict[str, Any]:
    """Properties of the validation data that must be equal for all models, by
    name. Pipelines may differ, because a model may need larger images."""
    dataset = build_data(run, lazy_init=True)
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
        ValueError: The data set is neither of MMDetection nor of
            MMSegmentation.
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


def read_truth(data: Data, index: int, image: np.ndarray,
               masks: bool) -> Seen:
    """Objects or class map of an image, from its annotations.

    Args:
        data: The validation data.
        index: Number of the image.
        image: Its pixels, [H, W, 3].
        masks: Also read the objects' masks.

    Raises:
        ValueError: The image has no label map.
    """
    info = data.dataset.get_data_info(index)
    if data.detects:
        info['ori_shape'] = image.shape[:2]
        info = TRANSFORMS.build(
            dict(type='mmdet.LoadAnnotations', with_mask=masks))(info)
        return Instances(
            labels=info['gt_bboxes_labels'],
            boxes=info['gt_bboxes'].tensor.numpy().reshape(-1, 4),
            masks=info['gt_masks'].masks.astype(bool) if masks else None,
            crowds=info['gt_ignore_flags'])
    if not info.get('seg_map_path'):
        raise ValueError(f'{info["img_path"]!r} has no label map '
                         '(val_dataloader.dataset.data_prefix.seg_map_path)')
    info = TRANSFORMS.build(dict(type='mmseg.LoadAnnotations'))(info)
    return ClassMap(info['gt_seg_map'].astype(np.int64))


# ---- models --------------------------------------------------------------


def predict(run: Run, paths: Sequence[str], detects: bool,
            score_thr: float) -> list[Seen]:
    """Objects or class maps that a model predicts.

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
    return [ClassMap(inference_model(
        model, path).pred_sem_seg.data[0].cpu().numpy()) for path in paths]


def objects(result: Any, score_thr: float, name: str) -> Instances:
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
    return Instances(
        labels=found.labels.numpy(), boxes=found.bboxes.numpy(),
        scores=found.scores.numpy(),
        masks=np.asarray(found.masks, bool) if 'masks' in found else None)


# ---- picture -------------------------------------------------------------


def compare(models: Sequence[str],
            images: int = 4,
            indices: Sequence[int] | None = None,
            score_thr: float = .4,
            truth: str = TRUTH,
            title: str = '',
            names: bool = False,
            weights: bool = False,
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
        weights: Write the teachers' weights below the panels of distilled
            models.
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
    if weights and not any(map(is_distilled, runs)):
        raise ValueError('--weights shows the teachers of models that were '
                         'distilled inside, by --distill, and none of '
                         f'{[run.name for run in runs]} has teachers in its '
                         'config')
    if stage is not None:
        stage.cfg = runs[0].cfg
    data = read_data(runs)
    chosen = choose(len(data.dataset), images, indices)
    paths = [data.dataset.get_data_info(n)['img_path'] for n in chosen]
    seen = {run.name: predict(run, paths, data.detects, score_thr)
            for run in runs}
    masks = any(isinstance(s, Instances) and s.masks is not None
                for column in seen.values() for s in column)
    pixels = [mmcv.imread(path, channel_order='rgb') for path in paths]
    there = [read_truth(data, n, image, masks)
             for n, image in zip(chosen, pixels)]
    return draw_scenes(
        pixels, {truth: there, **seen}, data.classes,
        class_colours(len(data.classes), data.palette), title, names,
        {run.name: teacher_weights(run, chosen) for run in runs}
        if weights else {})


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', metavar='MODEL',
                        help='NAME=WORK_DIR or NAME=CONFIG:CHECKPOINT')
    parser.add_argument('--score-thr', type=float, default=.4,
                        help="smallest score of a detector's objects "
                        '(default: 0.4)')
    parser.add_argument('--weights', action='store_true',
                        help="write the teachers' weights on each image below "
                        'the panels of distilled models')
    parser.add_argument('--title', default='', help='title of the picture')
    add_image_options(parser, 'side_by_side.png')
    args = parser.parse_args(argv)
    with clear_errors() as stage:
        figure = compare(args.models, args.images, args.indices,
                         args.score_thr, title=args.title,
                         weights=args.weights, stage=stage)
        write_picture(figure, args.out)
    print(args.out)


if __name__ == '__main__':
    main()
