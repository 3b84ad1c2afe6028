from .base import Updater
from .policy_gradient import PolicyGradient

__all__ = ['PolicyGradient', 'Updater']
