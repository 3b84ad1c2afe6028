from .batch import BatchReward
from .gradient import GradientReward
from .held_out import HeldOutReward
from .improvement import ImprovementReward
from .likelihood import LikelihoodReward

__all__ = [
    'BatchReward', 'GradientReward', 'HeldOutReward', 'ImprovementReward',
    'LikelihoodReward'
]
