from .projector import Projector, mapped_shape
from .tap import OutputTaps, Tap

__all__ = ['OutputTaps', 'Projector', 'Tap', 'mapped_shape']
