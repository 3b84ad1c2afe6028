from .backbone import BackboneTask
from .base import LogitTask, Task
from .classification import ClassificationTask
from .feature import FeatureTask
from .segmentation import SegmentationTask

__all__ = [
    'BackboneTask', 'ClassificationTask', 'FeatureTask', 'LogitTask',
    'SegmentationTask', 'Task'
]
