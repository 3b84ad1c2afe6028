from .executor import Executor
from .loading import load_model_config, load_weights, read_checkpoint
from .normalization import InputAdapter, Normalization
from .pool import TeacherBorrower, TeacherPool
from .stored import StoredExecutor, StoredViews
from .teacher import FrozenTeacher

__all__ = [
    'Executor', 'FrozenTeacher', 'InputAdapter', 'Normalization',
    'StoredExecutor', 'StoredViews', 'TeacherBorrower', 'TeacherPool',
    'load_model_config', 'load_weights', 'read_checkpoint'
]
