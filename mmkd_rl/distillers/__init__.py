from .builder import MultiTeacherDistiller
from .distillation import Distillation, distillation_of

__all__ = ['Distillation', 'MultiTeacherDistiller', 'distillation_of']
