"""A transform that puts another label in a label's place.

For teachers of another task on the same images: of CIFAR-100's 20
superclasses, say, or of any other grouping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcv.transforms import BaseTransform

from mmkd_rl.registry import TRANSFORMS

from .cifar100_coarse import CIFAR100_COARSE

#: Mappings that have a name.
MAPPINGS: dict[str, Sequence[int]] = {'cifar100_coarse': CIFAR100_COARSE}


@TRANSFORMS.register_module()
class MapLabels(BaseTransform):
    """Replace class c by ``mapping[c]``.

    The data set's own class names stay what they were; the head's
    ``num_classes`` is the number of classes mapped to.

    Args:
        mapping: A list with the new label of each class, a dict from labels
            to new ones (a label that it lacks is an error), or
            ``'cifar100_coarse'``: the 20 superclasses of CIFAR-100, in the
            order of :data:`CIFAR100_SUPERCLASSES`.

    Raises:
        ValueError: An unknown name, no entry at all, or something in it that
            is no label.
    """

    def __init__(self, mapping: Sequence[int] | Mapping[int, int] | str
                 ) -> None:
        name = type(self).__name__
        if isinstance(mapping, str) and mapping in MAPPINGS:
            mapping = MAPPINGS[mapping]
        #: The new label of each label.
        self.mapping: dict[int, int]
        if isinstance(mapping, Mapping):
            self.mapping = dict(mapping)
        elif isinstance(mapping, Sequence) and not isinstance(mapping, str):
            self.mapping = dict(enumerate(mapping))
        else:
            self.mapping = {}
        if not self.mapping:
            raise ValueError(f'{name}.mapping must be a list or a dict of '
                             f'labels, or one of {sorted(MAPPINGS)}, got '
                             f'{mapping!r}')
        for old, new in self.mapping.items():
            for label in (old, new):
                if not isinstance(label, int) or isinstance(label, bool) \
                        or label < 0:
                    raise ValueError(f'{name}.mapping: a label is a whole '
                                     f'number >= 0, got {label!r}')

    def transform(self, results: dict) -> dict:
        """Change ``results['gt_label']``.

        Raises:
            ValueError: A label that the mapping does not know.
        """
        label = int(results['gt_label'])
        if label not in self.mapping:
            known = sorted(self.mapping)
            some = known if len(known) < 12 else \
                f'{len(known)} labels from {known[0]} to {known[-1]}'
            raise ValueError(f'{type(self).__name__} maps {some}, and a '
                             f'label is {label}')
        results['gt_label'] = self.mapping[label]
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({len(self.mapping)} labels to '
                f'{len(set(self.mapping.values()))})')
