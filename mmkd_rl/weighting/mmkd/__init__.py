from .strategy import MMKD

__all__ = ['MMKD']
