"""A transform for the task of predicting image rotations.

Gidaris, Singh and Komodakis, Unsupervised representation learning by
predicting image rotations, ICLR 2018. A teacher trained with it uses the
images without their labels. Here each image gets one rotation; the paper has
all four of an image in a batch.
"""

from __future__ import annotations

import random

import numpy as np
from mmcv.transforms import BaseTransform

from mmkd_rl.options import Checked
from mmkd_rl.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RotateTask(Checked, BaseTransform):
    """Rotate the image by k quarter turns to the left; the label becomes k.

    There are four classes, so the head has ``num_classes=4``. Put it after
    transforms that crop and flip, and before packing.

    Args:
        draw: Draw k uniformly from 0 to 3, for training. ``False``: k is the
            sample's number modulo 4, so that tests are repeatable.
    """

    def __init__(self, draw: bool = True) -> None:
        self.draw = draw

    def transform(self, results: dict) -> dict:
        """Rotate ``results['img']`` ([H, H] or [H, H, C]), set ``gt_label``.

        Raises:
            ValueError: The image is not square; without ``draw``: there is
                no ``sample_idx``.
        """
        image = results['img']
        if image.shape[0] != image.shape[1]:
            raise ValueError(
                'RotateTask turns square images only, got one of '
                f'{image.shape[0]}x{image.shape[1]}; crop or resize it before')
        if self.draw:
            quarters = random.randrange(4)
        elif 'sample_idx' in results:
            quarters = results['sample_idx'] % 4
        else:
            raise ValueError('RotateTask(draw=False) needs sample_idx, which '
                             "MMEngine's data sets give; got "
                             f'{sorted(results)}')
        results['img'] = np.ascontiguousarray(np.rot90(image, quarters))
        results['gt_label'] = quarters
        return results

    def __repr__(self) -> str:
        return f'RotateTask(draw={self.draw})'
