from .base import LogitTask, Task
from .classification import ClassificationTask
from .feature import FeatureTask

__all__ = ['ClassificationTask', 'FeatureTask', 'LogitTask', 'Task']
