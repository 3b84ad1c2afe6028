from .ae_kd import AEKD
from .amtml_kd import AMTMLKD
from .average import AverageWeighting
from .base import WeightingStrategy, restrict
from .ca_mkd import CAMKD
from .eb_kd import EBKD
from .learner import Learner, Student
from .mmkd import MMKD
from .mtkd_rl import MTKDRL

__all__ = [
    'AEKD', 'AMTMLKD', 'CAMKD', 'EBKD', 'MMKD', 'MTKDRL',
    'AverageWeighting', 'Learner', 'Student', 'WeightingStrategy', 'restrict'
]
