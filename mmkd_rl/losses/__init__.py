from .base import DistillationTerm, FeatureTerm, LogitTerm, MixtureTerm
from .binary_kd import BinaryKDLoss
from .cross_kd import CrossKDLoss
from .cwd import CWDLogitLoss, CWDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fgd import FGDLoss
from .fitnet import FitNetLoss
from .kd import KDLoss
from .ld import LDLoss
from .mgd import MGDLoss
from .nd import NDLoss
from .pkd import PKDLoss
from .projector import Projector, mapped_shape
from .relation import AngleRelationLoss, DistanceRelationLoss

__all__ = [
    'AngleRelationLoss', 'BinaryKDLoss', 'CWDLogitLoss', 'CWDLoss',
    'CrossKDLoss', 'DISTLoss', 'DKDLoss', 'DistanceRelationLoss',
    'DistillationTerm', 'FGDLoss', 'FeatureTerm', 'FitNetLoss', 'KDLoss',
    'LDLoss', 'LogitTerm', 'MGDLoss', 'MixtureTerm', 'NDLoss', 'PKDLoss',
    'Projector', 'mapped_shape'
]
