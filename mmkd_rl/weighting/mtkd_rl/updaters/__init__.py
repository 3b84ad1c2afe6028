from .base import Updater
from .bce import BCEUpdater
from .ddpg import DDPG
from .dpg import DPG
from .policy_gradient import PolicyGradient
from .ppo import PPO

__all__ = ['DDPG', 'DPG', 'PPO', 'BCEUpdater', 'PolicyGradient', 'Updater']
