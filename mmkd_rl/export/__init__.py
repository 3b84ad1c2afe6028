from .student import FORMATS, export_student

__all__ = ['FORMATS', 'export_student']
