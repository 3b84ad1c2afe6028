from .backbone import BackboneTask
from .base import LogitTask, Task
from .classification import ClassificationTask
from .detection import DetectionTask
from .feature import FeatureTask
from .segmentation import SegmentationTask

__all__ = [
    'BackboneTask', 'ClassificationTask', 'DetectionTask', 'FeatureTask',
    'LogitTask', 'SegmentationTask', 'Task'
]
