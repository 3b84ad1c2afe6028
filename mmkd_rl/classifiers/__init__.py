"""Classifiers of other packages, under MMEngine's roof."""

from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.models.losses import CrossEntropyLoss

from mmkd_rl.registry import MODELS

from .timm import TimmClassifier
from .torchvision import TorchVisionClassifier
from .wrapped import ModuleClassifier

__all__ = ['ModuleClassifier', 'TimmClassifier', 'TorchVisionClassifier']

# MMPretrain's classifiers and heads fill these two names in without saying
# whose they are, so under `default_scope='mmkd_rl'` they are looked up here.
for _part in (ClsDataPreprocessor, CrossEntropyLoss):
    MODELS.register_module(module=_part)
