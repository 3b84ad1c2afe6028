"""torchvision's classifiers as MMPretrain models (for timm's MMPretrain has
``TimmClassifier``)."""

from __future__ import annotations

from typing import Any

import torchvision

from mmkd_rl.classifiers.wrapped import CROSS_ENTROPY, WrappedClassifier
from mmkd_rl.registry import MODELS


@MODELS.register_module()
class TorchVisionClassifier(WrappedClassifier):
    """Any model of ``torchvision.models.get_model`` that classifies images.

    Names in its checkpoints are torchvision's, without a prefix.

    Args:
        model_name: A name from ``torchvision.models.list_models()``.
        loss: Config of the classification loss.
        data_preprocessor: See ``mmpretrain.ImageClassifier``.
        init_cfg: See ``mmengine.model.BaseModule``.
        **kwargs: Arguments of the model's builder, such as ``num_classes``.

    Raises:
        ValueError: No such model.
    """

    def __init__(self,
                 model_name: str,
                 loss: dict = CROSS_ENTROPY,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None,
                 **kwargs: Any) -> None:
        super().__init__(torchvision.models.get_model(model_name, **kwargs),
                         loss, data_preprocessor, init_cfg)
