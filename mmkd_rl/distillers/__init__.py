from .builder import MultiTeacherDistiller
from .distillation import Distillation, check_outermost, distillation_of

__all__ = [
    'Distillation', 'MultiTeacherDistiller', 'check_outermost',
    'distillation_of'
]
