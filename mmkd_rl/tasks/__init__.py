from .backbone import BackboneTask
from .base import LogitTask, Task
from .classification import ClassificationTask
from .feature import FeatureTask

__all__ = [
    'BackboneTask', 'ClassificationTask', 'FeatureTask', 'LogitTask', 'Task'
]
