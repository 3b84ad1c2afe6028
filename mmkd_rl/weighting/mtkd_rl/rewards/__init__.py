from .batch import BatchReward
from .held_out import HeldOutReward
from .improvement import ImprovementReward
from .likelihood import LikelihoodReward

__all__ = [
    'BatchReward', 'HeldOutReward', 'ImprovementReward', 'LikelihoodReward'
]
