from .cwd import CWDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fitnet import FitNetLoss
from .kd import KDLoss
from .nd import NDLoss

__all__ = [
    'CWDLoss', 'DISTLoss', 'DKDLoss', 'FitNetLoss', 'KDLoss', 'NDLoss'
]
