"""Data sets that need no download, torchvision's, and parts of both."""

from .cifar100_coarse import CIFAR100_COARSE, CIFAR100_SUPERCLASSES
from .class_subset import ClassSubset
from .digits import DigitsDataset
from .map_labels import MapLabels
from .permute_labels import PermuteLabels
from .random_labels import RandomLabels
from .repeatable_views import RepeatableViews
from .rotate_task import RotateTask
from .torchvision_dataset import TorchVisionDataset
from .view_sampler import ViewSampler

__all__ = [
    'CIFAR100_COARSE', 'CIFAR100_SUPERCLASSES', 'ClassSubset',
    'DigitsDataset', 'MapLabels', 'PermuteLabels', 'RandomLabels',
    'RepeatableViews', 'RotateTask', 'TorchVisionDataset', 'ViewSampler'
]
