from .loading import load_model_config, load_weights, read_checkpoint
from .normalization import InputAdapter, Normalization
from .pool import TeacherBorrower, TeacherPool
from .runtime import FrozenTeacher

__all__ = [
    'FrozenTeacher', 'InputAdapter', 'Normalization', 'TeacherPool',
    'TeacherBorrower', 'load_model_config', 'load_weights', 'read_checkpoint'
]
