"""Classifiers of other packages as MMPretrain models."""

from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.models.losses import CrossEntropyLoss

from mmkd_rl.registry import MODELS

from .hugging_face import HuggingFaceClassifier
from .timm import TimmClassifier
from .torchvision import TorchVisionClassifier
from .wrapped import ModuleClassifier

__all__ = ['HuggingFaceClassifier', 'ModuleClassifier', 'TimmClassifier',
           'TorchVisionClassifier']

# MMPretrain's classifiers and heads use these two names without a prefix, so
# with `default_scope='mmkd_rl'` they are looked up in our registry.
for _part in (ClsDataPreprocessor, CrossEntropyLoss):
    MODELS.register_module(module=_part)
