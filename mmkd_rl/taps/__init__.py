from .tap import Listener, OutputTaps, Recording, Tap

__all__ = ['Listener', 'OutputTaps', 'Recording', 'Tap']
