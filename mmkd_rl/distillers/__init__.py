from .multi_teacher import MultiTeacherDistiller

__all__ = ['MultiTeacherDistiller']
