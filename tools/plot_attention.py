"""Draw where a distilled detector's losses look, and where its teachers do.

    python tools/plot_attention.py work_dirs/RUN --images 4

A row is an image of the validation data. The columns: the objects; the weights
that FGDLoss gives to the cells of their boxes (small objects as much in sum as
large ones); for each teacher where its features are large (FGDLoss's
attention), and, where class scores are distilled, the largest probability of a
class at each location. Bright is much; each map has a scale of its own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.dataset import pseudo_collate

import mmkd_rl  # noqa: F401  (registers the scope mmkd_rl)
from analysis.pictures import add_image_options, choose
from analysis.teacher_weights import annotations_first
from analysis.trained_models import Run, build_data, open_distilled, read_run
from mmkd_rl.losses.fgd import attention, object_regions
from mmkd_rl.records import Batch
from mmkd_rl.tasks import DetectionTask
from mmkd_rl.utils.cli import clear_errors
from mmkd_rl.utils.data_files import check_data
from mmkd_rl.visualization.command import write_picture

#: T of FGDLoss.
_TEMPERATURE = .5
_WIDTH = 2.6


def maps_of(model: Any, batch: Batch, level: int) -> dict[str, np.ndarray]:
    """The maps of one image, [h, w] each, by the column's title.

    Args:
        model: A distilled detector.
        batch: The image and its data sample, from the preprocessor.
        level: Which of the levels that are compared with the student's.

    Raises:
        ValueError: A teacher has no level of this number.
    """
    distillation = model.distillation
    truth = distillation.task.truth(batch)
    found: dict[str, np.ndarray] = {}
    outputs = distillation.teachers.run(batch).outputs
    for name, output in zip(distillation.teacher_names, outputs):
        if level >= len(output.features):
            raise ValueError(f'--level {level}: teacher {name!r} has '
                             f'{len(output.features)} levels, from 0')
        feature = output.features[level].float()
        valid = torch.ones_like(feature[:, 0]) if (
            given := truth.valid_at(feature)) is None else (given > 0).float()
        if 'foreground' not in found:
            found['foreground'], _ = (
                region[0].cpu().numpy()
                for region in object_regions(truth.targets, valid))
        found[f'{name}: attention'] = attention(
            feature * valid[:, None], valid, _TEMPERATURE)[0][0].cpu().numpy()
        if distillation.task.reads_scores and level < len(output.logits):
            found[f'{name}: probability'] = output.logits[level][
                0].sigmoid().amax(0).cpu().numpy()
    return found


def draw(run: Run, indices: Sequence[int] | None, images: int,
         level: int) -> Figure:
    """Draw the maps of a run's teachers on validation images.

    Args:
        run: A distillation.
        indices: Numbers of the images; ``None``: the first ones.
        images: How many of the first ones.
        level: Which of the compared levels, the finest is 0.

    Raises:
        ValueError, FileNotFoundError: See :func:`open_distilled` and
            :func:`maps_of`; or the run's model is no detector, or there is no
            such image.
    """
    check_data(run.cfg, ['val'])
    model: Any = open_distilled(run)
    task = model.distillation.task
    if not isinstance(task, DetectionTask):
        raise ValueError(f'{type(model).__name__} with {type(task).__name__} '
                         'has no boxes; give the run of a detector with '
                         'DetectionTask')
    dataset = build_data(run, pipeline=annotations_first(
        run.cfg.val_dataloader.dataset.pipeline))
    rows = []
    for index in choose(len(dataset), images, indices):
        item = dataset[index]
        # Before the preprocessor, which normalises them in place.
        pixels = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1].copy()
        boxes = item['data_samples'].gt_instances.bboxes.tensor.numpy().copy()
        data = model.data_preprocessor(pseudo_collate([item]), False)
        with torch.no_grad():
            rows.append((pixels, boxes, data['inputs'].shape[2:], maps_of(
                model, Batch(data['inputs'], data['data_samples']), level)))
    return _figure(rows)


def _figure(rows: Sequence[tuple]) -> Figure:
    titles = ['objects', *rows[0][3]]
    ratios = [row[0].shape[0] / row[0].shape[1] for row in rows]
    figure = Figure(figsize=(_WIDTH * len(titles), _WIDTH * sum(ratios) + .4),
                    layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(titles), squeeze=False,
                           height_ratios=ratios)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9)
    for line, (pixels, boxes, (height, width), maps) in zip(axes, rows):
        for axis, title in zip(line, titles):
            axis.imshow(pixels)
            if title in maps:
                # Maps belong to the padded image.
                axis.imshow(maps[title], 'inferno', alpha=.75,
                            extent=(0, width, height, 0),
                            interpolation='nearest')
            else:
                for x1, y1, x2, y2 in boxes:
                    axis.add_patch(Rectangle(
                        (x1, y1), x2 - x1, y2 - y1, fill=False, color='lime'))
            axis.set(xlim=(0, pixels.shape[1]), ylim=(pixels.shape[0], 0),
                     xticks=[], yticks=[])
    return figure


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', help='work directory of a distilled detector, '
                        'or CONFIG:CHECKPOINT')
    parser.add_argument('--level', type=int, default=0,
                        help="which of a teacher's levels that are compared, "
                        'the finest is 0 (default); the foreground is drawn '
                        'for the first teacher')
    add_image_options(parser, 'attention.png')
    args = parser.parse_args(argv)
    if args.level < 0:
        parser.error(f'--level must be at least 0, got {args.level}')
    with clear_errors() as stage:
        if not os.path.isdir(os.path.expanduser(args.run)) and \
                ':' not in args.run:
            raise FileNotFoundError(
                f'{args.run!r} is no folder; give the work directory of a '
                'run, or CONFIG:CHECKPOINT')
        run = read_run(f'run={args.run}')
        stage.cfg = run.cfg
        figure = draw(run, args.indices, args.images, args.level)
        write_picture(figure, args.out)
    print(args.out)


if __name__ == '__main__':
    main()
