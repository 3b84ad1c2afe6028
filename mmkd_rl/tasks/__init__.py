from .base import Task
from .classification import ClassificationTask

__all__ = ['ClassificationTask', 'Task']
