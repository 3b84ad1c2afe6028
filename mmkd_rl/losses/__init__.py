from .fitnet import FitNetLoss
from .kd import KDLoss

__all__ = ['FitNetLoss', 'KDLoss']
