"""Picture of the detections of the demo's detectors."""

from __future__ import annotations

from pathlib import Path

from compare_predictions import compare


def draw_detections(root: Path, out: Path, images: int = 4) -> None:
    """Draw test scenes with the true objects and those of each detector.

    Args:
        root: The demo's folder.
        out: Picture file to write.
        images: Number of scenes, one a row.
    """
    compare(
        [f'detector from the student alone={root}/mask_rcnn_plain',
         f'detector from the MTKD-RL student={root}/mask_rcnn_mtkd_rl'],
        images=images,
        score_thr=.5,
        truth='ground truth',
        title='Digits in test scenes: boxes, masks, class and score (above '
        '50 %); all else is clutter',
        names=True).savefig(out, dpi=110)
