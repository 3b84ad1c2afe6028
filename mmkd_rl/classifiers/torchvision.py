"""torchvision's classifiers as MMPretrain models (for timm's MMPretrain has
``TimmClassifier``)."""

from __future__ import annotations

from typing import Any

import torchvision
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmkd_rl.registry import MODELS


@MODELS.register_module()
class TorchVisionClassifier(BaseClassifier):
    """Any model of ``torchvision.models.get_model`` that classifies images.

    Its checkpoints are torchvision's own: no prefix before the names.

    Args:
        model_name: As in ``torchvision.models.list_models()``.
        loss: Config of the classification loss.
        data_preprocessor: As for ``mmpretrain.ImageClassifier``.
        init_cfg: See ``mmengine.model.BaseModule``.
        **kwargs: For the model's builder, such as ``num_classes``.

    Raises:
        ValueError: No such model.
    """

    def __init__(self,
                 model_name: str,
                 loss: dict = dict(
                     type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None,
                 **kwargs: Any) -> None:
        if data_preprocessor is None:
            data_preprocessor = {}
        if isinstance(data_preprocessor, dict):
            data_preprocessor.setdefault('type',
                                         'mmpretrain.ClsDataPreprocessor')
        super().__init__(
            init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        self.model: nn.Module = torchvision.models.get_model(
            model_name, **kwargs)
        # Without parameters: it turns logits into losses and predictions.
        self.head = ClsHead(loss=loss)
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    def forward(self, inputs: Tensor, data_samples=None, mode='tensor'):
        """As every MMPretrain classifier; [B, C] in ``'tensor'`` mode."""
        logits = (self.model(inputs), )
        if mode == 'tensor':
            return self.head(logits)
        if mode == 'loss':
            return self.head.loss(logits, data_samples)
        if mode == 'predict':
            return self.head.predict(logits, data_samples)
        raise ValueError("mode must be 'tensor', 'loss' or 'predict', got "
                         f'{mode!r}')

    def extract_feat(self, inputs: Tensor):
        """torchvision's networks have no common name for their features.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError('use taps to read features of '
                                  'torchvision models')

    def loss(self, inputs: Tensor, data_samples) -> dict:
        """Losses of a batch."""
        return self.forward(inputs, data_samples, mode='loss')

    def predict(self, inputs: Tensor, data_samples=None):
        """Predictions of a batch."""
        return self.forward(inputs, data_samples, mode='predict')


def _drop_prefix(module: nn.Module, state: dict, prefix: str,
                 metadata: dict) -> None:
    for name in list(state):
        if name.startswith(prefix + 'model.'):
            state[prefix + name[len(prefix + 'model.'):]] = state.pop(name)


def _add_prefix(module: nn.Module, state: dict, prefix: str,
                *args: Any) -> None:
    own = {prefix + 'model.' + n for n, _ in module.model.named_parameters()}
    own |= {prefix + 'model.' + n for n, _ in module.model.named_buffers()}
    for name in list(state):
        long = prefix + 'model.' + name[len(prefix):]
        if name.startswith(prefix) and long in own:
            state[long] = state.pop(name)
