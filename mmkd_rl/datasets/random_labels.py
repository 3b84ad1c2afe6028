"""A transform for poor teachers: random labels.

:class:`PermuteLabels` makes only a teacher's logits wrong; its features are as
good as others. For Knowledge Flow (ICLR 2019), which uses features, a teacher
is poor only if its labels are independent of the images.
"""

from __future__ import annotations

from typing import Annotated

from mmcv.transforms import BaseTransform
from numpy.random import default_rng
from pydantic import Field

from mmkd_rl.options import Checked, Natural
from mmkd_rl.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomLabels(Checked, BaseTransform):
    """Replace a sample's class by a uniformly drawn one, the same each time.

    Args:
        num_classes: C, 2 or more.
        seed: Seed; the label depends on it and on the sample's number.
    """

    def __init__(self, num_classes: Annotated[int, Field(ge=2)],
                 seed: Natural = 0) -> None:
        self.num_classes, self.seed = num_classes, seed

    def transform(self, results: dict) -> dict:
        """Change ``results['gt_label']``.

        Raises:
            ValueError: There is no ``sample_idx``.
        """
        if 'sample_idx' not in results:
            raise ValueError("RandomLabels needs sample_idx, which MMEngine's "
                             f'data sets give; got {sorted(results)}')
        rng = default_rng((self.seed, results['sample_idx']))
        results['gt_label'] = int(rng.integers(self.num_classes))
        return results
