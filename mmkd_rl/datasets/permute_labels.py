"""A transform that makes a teacher which is wrong, surely and consistently.

For experiments on what a poor teacher in the pool costs: trained with it, a
network learns one fixed permutation of the classes. Its features are as good
as any, its logits always name another class.
"""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from numpy.random import default_rng

from mmkd_rl.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PermuteLabels(BaseTransform):
    """Replace class c by pi(c), a random cyclic permutation: no class stays.

    Args:
        num_classes: C.
        seed: Of the permutation.

    Raises:
        ValueError: Fewer than two classes.
    """

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        if num_classes < 2:
            raise ValueError('PermuteLabels.num_classes must be >= 2, got '
                             f'{num_classes}')
        order = default_rng(seed).permutation(num_classes)
        #: pi as a list: class c becomes ``permutation[c]``.
        self.permutation = [0] * num_classes
        for here, there in zip(order, [*order[1:], order[0]]):
            self.permutation[int(here)] = int(there)

    def transform(self, results: dict) -> dict:
        """Change ``results['gt_label']``.

        Raises:
            ValueError: A label that is no class.
        """
        label = int(results['gt_label'])
        if not 0 <= label < len(self.permutation):
            raise ValueError(
                f'PermuteLabels has num_classes={len(self.permutation)}, and '
                f'a label is {label}')
        results['gt_label'] = self.permutation[label]
        return results
