"""Picture of the detections of the demo's detectors."""

from __future__ import annotations

import contextlib
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.apis import inference_detector, init_detector
from pycocotools.coco import COCO


def draw_detections(root: Path, out: Path, scenes: int = 4) -> None:
    """Draw test scenes with the true objects and those of each detector.

    Args:
        root: The demo's folder.
        out: Picture file to write.
        scenes: Number of scenes, one a row.
    """
    data = root / 'scenes' / 'data'
    with contextlib.redirect_stdout(None):
        coco = COCO(str(data / 'annotations' / 'test.json'))
    images = coco.loadImgs(coco.getImgIds()[:scenes])
    paths = [str(data / 'images' / 'test' / i['file_name']) for i in images]
    columns: list[tuple[str, list]] = [('what is there', [[
        (a['category_id'], None, a['bbox'], coco.annToMask(a).astype(bool))
        for a in coco.imgToAnns[i['id']]
    ] for i in images])]
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for which, title in (('plain', 'found from the student alone'),
                         ('mtkd_rl', 'found from the MTKD-RL student')):
        folder = root / f'mask_rcnn_{which}'
        model = init_detector(
            str(next(folder.glob('mask_rcnn_*.py'))),
            str(next(folder.glob('iter_*.pth'))), device=device)
        found = []
        for result in inference_detector(model, paths):
            p = result.pred_instances.cpu()
            p = p[p.scores > .5]
            xyxy = p.bboxes.numpy()
            boxes = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1)
            found.append(
                list(zip(p.labels.tolist(), p.scores.tolist(), boxes,
                         p.masks.numpy(), strict=True)))
        columns.append((title, found))

    figure = Figure(
        figsize=(3.1 * len(columns), 3.1 * scenes + .7), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle('Digits in test scenes: boxes, masks, class and score '
                    '(above 50 %); all else is clutter')
    axes = figure.subplots(scenes, len(columns), squeeze=False)
    for row, path in enumerate(paths):
        image = cv2.imread(path)[..., ::-1]  # type: ignore[index]
        for column, (title, found) in enumerate(columns):
            _draw_scene(axes[row][column], image, found[row])
            if row == 0:
                axes[row][column].set_title(title, fontsize=11)
    figure.savefig(out, dpi=110)


def _draw_scene(axis, image, instances) -> None:
    shade = (image * .7).astype(np.uint8)
    for label, score, box, mask in instances:
        colour = np.array(plt.get_cmap('tab10')(label)[:3])
        shade[mask] = .25 * image[mask] + .75 * 255 * colour
        axis.add_patch(
            Rectangle((box[0] - .5, box[1] - .5), box[2], box[3], fill=False,
                      edgecolor=colour, linewidth=1.5))
        text = str(label) if score is None else f'{label}  {score:.0%}'
        axis.text(box[0], box[1] - 2, text, fontsize=8, color='white',
                  bbox=dict(facecolor=colour, edgecolor='none', pad=1,
                            alpha=.9))
    if not instances:
        axis.text(64, 64, 'nothing found', color='white', ha='center')
    axis.imshow(shade, interpolation='nearest')
    axis.set_xticks([])
    axis.set_yticks([])
