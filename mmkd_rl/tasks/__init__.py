from .base import Task
from .classification import ClassificationTask
from .feature import FeatureTask

__all__ = ['ClassificationTask', 'FeatureTask', 'Task']
