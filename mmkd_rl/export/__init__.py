from .student import FORMATS, Format, export_student

__all__ = ['FORMATS', 'Format', 'export_student']
