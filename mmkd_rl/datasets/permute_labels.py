"""A transform for teachers that are confidently and consistently wrong.

For experiments with a poor teacher in the pool: a network trained with it
learns a fixed permutation of the classes. Its features are as good as others,
its logits always predict a wrong class.
"""

from __future__ import annotations

from typing import Annotated

from numpy.random import default_rng
from pydantic import Field

from mmkd_rl.options import Natural
from mmkd_rl.registry import TRANSFORMS

from .map_labels import MapLabels


@TRANSFORMS.register_module()
class PermuteLabels(MapLabels):
    """Replace class c by pi(c), a random cyclic permutation: no class stays.

    Args:
        num_classes: C, 2 or more.
        seed: Seed of the permutation.

    Raises:
        ValueError: While training: a label that is no class.
    """

    def __init__(self, num_classes: Annotated[int, Field(ge=2)],
                 seed: Natural = 0) -> None:
        order = default_rng(seed).permutation(num_classes)
        #: pi as a list: class c becomes ``permutation[c]``.
        self.permutation = [0] * num_classes
        for here, there in zip(order, [*order[1:], order[0]]):
            self.permutation[int(here)] = int(there)
        super().__init__(self.permutation)
