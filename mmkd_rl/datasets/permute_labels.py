"""A transform that makes a teacher which is wrong, surely and consistently.

For experiments on what a poor teacher in the pool costs: trained with it, a
network learns one fixed permutation of the classes. Its features are as good
as any, its logits always name another class.
"""

from __future__ import annotations

from numpy.random import default_rng

from mmkd_rl.registry import TRANSFORMS

from .map_labels import MapLabels


@TRANSFORMS.register_module()
class PermuteLabels(MapLabels):
    """Replace class c by pi(c), a random cyclic permutation: no class stays.

    Args:
        num_classes: C.
        seed: Of the permutation.

    Raises:
        ValueError: Fewer than two classes; while training, a label that is
            no class.
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
        super().__init__(self.permutation)
