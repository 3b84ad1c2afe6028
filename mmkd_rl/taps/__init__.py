from .projector import Projector
from .tap import OutputTaps, Tap

__all__ = ['OutputTaps', 'Projector', 'Tap']
