"""A transform that maps labels to other labels.

For teachers of another task on the same images, such as CIFAR-100's 20
superclasses, another grouping, or some of a segmentor's classes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from mmcv.transforms import BaseTransform

from mmkd_rl.options import Checked, ConfigError, Natural
from mmkd_rl.registry import TRANSFORMS

from .cifar100_coarse import CIFAR100_COARSE

#: Mappings that have a name.
MAPPINGS: dict[str, Sequence[int]] = {'cifar100_coarse': CIFAR100_COARSE}


@TRANSFORMS.register_module()
class MapLabels(Checked, BaseTransform):
    """Replace class c by ``mapping[c]``, of an image or of each pixel.

    The data set's class names do not change; the head's ``num_classes`` must
    be the number of new labels.

    Args:
        mapping: A list with the new label of each class, a dict from old to
            new labels (missing labels are an error), or
            ``'cifar100_coarse'``: the 20 superclasses of CIFAR-100, in the
            order of :data:`CIFAR100_SUPERCLASSES`. Of label maps up to 255,
            which is no class for a head with ``ignore_index=255``.

    Raises:
        ConfigError: The mapping is empty.
    """

    def __init__(self, mapping: Sequence[Natural] | dict[Natural, Natural]
                 | Literal['cifar100_coarse']) -> None:
        if isinstance(mapping, str):
            mapping = MAPPINGS[mapping]
        if not mapping:
            raise ConfigError(f'{type(self).__name__}.mapping', 'must have a '
                              f'label, got {mapping!r}')
        #: The new label of each label.
        self.mapping: dict[int, int] = dict(
            mapping if isinstance(mapping, dict) else enumerate(mapping))

    def transform(self, results: dict) -> dict:
        """Change ``results['gt_label']`` or ``results['gt_seg_map']``, [H, W],
        of which a changed copy is kept.

        Raises:
            ValueError: A label is not in the mapping.
        """
        if 'gt_seg_map' in results:
            before = results['gt_seg_map']
            after = before.copy()
            for label in np.unique(before).tolist():
                after[before == label] = self._mapped(label)
            results['gt_seg_map'] = after
        else:
            results['gt_label'] = self._mapped(int(results['gt_label']))
        return results

    def _mapped(self, label: int) -> int:
        if label not in self.mapping:
            known = sorted(self.mapping)
            some = known if len(known) < 12 else \
                f'{len(known)} labels from {known[0]} to {known[-1]}'
            raise ValueError(f'{type(self).__name__} maps {some}, and a '
                             f'label is {label}')
        return self.mapping[label]

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({len(self.mapping)} labels to '
                f'{len(set(self.mapping.values()))})')
