from .action import confidence, divergence, mix
from .history import History
from .policy import WeightPolicy
from .reward import AgreementReward, DistanceReward, Reward, normalize_reward
from .rewards import (
    BatchReward,
    HeldOutReward,
    ImprovementReward,
    LikelihoodReward,
)
from .standardize import RunningStandardizer
from .state import STATE_PARTS, StateBuilder

__all__ = [
    'STATE_PARTS', 'AgreementReward', 'BatchReward', 'DistanceReward',
    'HeldOutReward', 'History', 'ImprovementReward', 'LikelihoodReward',
    'Reward', 'RunningStandardizer', 'StateBuilder', 'WeightPolicy',
    'confidence', 'divergence', 'mix', 'normalize_reward'
]
