from .action import confidence, divergence, mix
from .history import History
from .policy import WeightPolicy
from .reward import AgreementReward, DistanceReward, Reward, normalize_reward
from .standardize import RunningStandardizer
from .state import STATE_PARTS, StateBuilder

__all__ = [
    'STATE_PARTS', 'AgreementReward', 'DistanceReward', 'History', 'Reward',
    'RunningStandardizer', 'StateBuilder', 'WeightPolicy', 'confidence',
    'divergence', 'mix', 'normalize_reward'
]
