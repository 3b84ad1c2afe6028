from .average import AverageWeighting
from .base import WeightingContext, WeightingStrategy
from .mtkd_rl import MTKDRL

__all__ = [
    'MTKDRL', 'AverageWeighting', 'WeightingContext', 'WeightingStrategy'
]
