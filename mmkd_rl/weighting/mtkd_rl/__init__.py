from .action import divergence, mix
from .history import History
from .policy import WeightPolicy
from .reward import AgreementReward, DistanceReward, Reward, normalize_reward
from .rewards import (
    BatchReward,
    GradientReward,
    HeldOutReward,
    ImprovementReward,
    LikelihoodReward,
)
from .standardize import RunningStandardizer
from .state import STATE_PARTS, StateBuilder
from .strategy import MTKDRL

__all__ = [
    'MTKDRL', 'STATE_PARTS', 'AgreementReward', 'BatchReward',
    'DistanceReward', 'GradientReward', 'HeldOutReward', 'History',
    'ImprovementReward', 'LikelihoodReward', 'Reward', 'RunningStandardizer',
    'StateBuilder', 'WeightPolicy', 'divergence', 'mix', 'normalize_reward'
]
