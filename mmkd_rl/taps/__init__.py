from .in_training import find_elements
from .tap import Listener, OutputTaps, Recording, Tap

__all__ = ['Listener', 'OutputTaps', 'Recording', 'Tap', 'find_elements']
